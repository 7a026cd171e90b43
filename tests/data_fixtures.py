"""A miniature vocabulary and corpus of our own, in the formats of the real ones and consistent with
each other.

40 concepts with synthetic CUIs, 20 documents with 60 mentions; enough to run every stage on a tiny
model. Names are plain English, written for this file; some are shared by two concepts ("cold"),
some mentions have a CUI that the dictionary lacks, some a text that no name of their concept
equals.
"""

from pathlib import Path

# CUI -> (type id, names, the preferred one first)
VOCABULARY: dict[str, tuple[str, tuple[str, ...]]] = {
    "C9000001": (
        "T047",
        ("diabetic neuropathy", "neuropathy in diabetes", "nerve damage of diabetes"),
    ),
    "C9000002": ("T047", ("diabetes mellitus", "diabetes", "sugar disease")),
    "C9000003": ("T047", ("heart attack", "myocardial infarction", "coronary attack")),
    "C9000004": ("T047", ("common cold", "cold", "head cold")),
    "C9000005": ("T047", ("high blood pressure", "hypertension")),
    "C9000006": ("T047", ("low blood pressure", "hypotension")),
    "C9000007": ("T047", ("lung inflammation", "pneumonia")),
    "C9000008": ("T047", ("liver inflammation", "hepatitis")),
    "C9000009": ("T047", ("kidney failure", "renal failure", "failing kidneys")),
    "C9000010": ("T047", ("heart failure", "cardiac failure", "failing heart")),
    "C9000011": ("T047", ("stroke", "brain attack")),
    "C9000012": ("T047", ("asthma", "wheezing disease")),
    "C9000013": ("T184", ("fever", "high temperature", "raised body temperature")),
    "C9000014": ("T184", ("cough", "coughing")),
    "C9000015": ("T184", ("headache", "head pain", "pain in the head")),
    "C9000016": ("T184", ("chest pain", "pain in the chest")),
    "C9000017": ("T184", ("back pain", "pain in the back")),
    "C9000018": ("T184", ("tiredness", "fatigue")),
    "C9000019": ("T184", ("nausea", "feeling sick")),
    "C9000020": ("T184", ("itch", "itching skin")),
    "C9000021": ("T023", ("heart", "cardiac muscle organ")),
    "C9000022": ("T023", ("liver", "hepatic organ")),
    "C9000023": ("T023", ("kidney", "renal organ")),
    "C9000024": ("T023", ("lung", "pulmonary organ")),
    "C9000025": ("T023", ("brain", "cerebral organ")),
    "C9000026": ("T023", ("skin", "outer covering of the body")),
    "C9000027": ("T023", ("stomach", "gastric organ")),
    "C9000028": ("T023", ("bone", "osseous tissue")),
    "C9000029": ("T121", ("insulin", "sugar-lowering hormone")),
    "C9000030": ("T121", ("aspirin", "willow bark acid")),
    "C9000031": ("T121", ("beta blocker", "\u03b2-blocker")),
    "C9000032": ("T121", ("vitamin C", "ascorbic acid")),
    "C9000033": ("T121", ("vitamin D", "sunshine vitamin")),
    "C9000034": ("T121", ("caffeine", "coffee alkaloid")),
    "C9000035": ("T070", ("cold temperature", "cold")),
    "C9000036": ("T070", ("heat", "hot temperature")),
    "C9000037": ("T061", ("heart surgery", "cardiac surgery")),
    "C9000038": ("T061", ("kidney transplant", "renal transplantation")),
    "C9000039": ("T061", ("physiotherapy", "physical therapy")),
    "C9000040": ("T061", ("Men\u00e9trier repair", "stomach repair")),
}

# (title, abstract); [mention|CUI] marks an annotation. C99999.. are not in the dictionary.
DOCUMENTS = (
    ("[Diabetes|C9000002] and the [heart|C9000021]", "Patients had [sugar disease|C9000002]."),
    ("[Cold|C9000004] in winter", "A [head cold|C9000004] brings [coughing|C9000014]."),
    (
        "Exposure to [cold|C9000035]",
        "Mice kept in the [heat|C9000036] drank; the [skin|C9000026] was dry.",
    ),
    (
        "[\u03b2-blocker|C9000031] use",
        "For [hypertension|C9000005] at 40 \u03bcg; [tired|C9000018] patients.",
    ),
    ("[Aspirin|C9000030] trial", "It prevents [heart attacks|C9000003] and [stroke|C9000011]."),
    ("[Hepatitis|C9000008] of the [liver|C9000022]", "No [nausea|C9000019] was seen."),
    ("[Renal failure|C9000009]", "After [kidney transplant|C9000038] came [zebra fever|C9999901]."),
    ("[Fever|C9000013] at night", "Nor [headache|C9000015] nor [back pain|C9000017]."),
    ("[Asthma|C9000012] | a survey", "The [lungs|C9000024] and [itch|C9000020]."),
    ("[Vitamin D|C9000033] and [bone|C9000028]", "Also [ascorbic acid|C9000032]."),
    ("[Stroke|C9000011] care", "[Physical therapy|C9000039] helps the [brain|C9000025]."),
    (
        "[Coffee alkaloid|C9000034]",
        "It raises [high blood pressure|C9000005], not [fatigue|C9000018].",
    ),
    ("[Cardiac surgery|C9000037]", "[Chest pain|C9000016] after [heart failure|C9000010]."),
    (
        "[Pneumonia|C9000007] in children",
        "[Raised body temperature|C9000013] and [cough|C9000014].",
    ),
    (
        "[Men\u00e9trier repair|C9000040]",
        "The [stomach|C9000027] healed without [feeling sick|C9000019].",
    ),
    ("[Diabetic neuropathy|C9000001]", "Treated with [insulin|C9000029] for [diabetes|C9000002]."),
    ("[Hypotension|C9000006] at rest", "The [failing heart|C9000010] and [moon dust|C9999902]."),
    ("[Head pain|C9000015] and [cold|C9000004]", "Given [aspirin|C9000030]."),
    ("[Cold|C9000035] plunges", "The [heart|C9000021] and the [kidney|C9000023] adapt."),
    (
        "[Myocardial infarction|C9000003]",
        "Seen with [diabetes|C9000002] and [hypertension|C9000005].",
    ),
)
PMIDS = tuple(str(900 + number) for number in range(len(DOCUMENTS)))
TRAIN_PMIDS = PMIDS[:8]
DEV_PMIDS = PMIDS[8:]

TYPES = {
    "T051": ("B", "Event", "ACTI", "Activities & Behaviors"),
    "T071": ("A", "Entity", "CONC", "Concepts & Ideas"),
    "T072": ("A1", "Physical Object", "OBJC", "Objects"),
    "T023": ("A1.2.3.1", "Body Part, Organ, or Organ Component", "ANAT", "Anatomy"),
    "T121": ("A1.4.1.1.1", "Pharmacologic Substance", "CHEM", "Chemicals & Drugs"),
    "T033": ("A2.2", "Finding", "DISO", "Disorders"),
    "T184": ("A2.2.2", "Sign or Symptom", "DISO", "Disorders"),
    "T061": ("B1.3.1.3", "Therapeutic or Preventive Procedure", "PROC", "Procedures"),
    "T070": ("B2.2", "Natural Phenomenon or Process", "PHEN", "Phenomena"),
    "T046": ("B2.2.1.2", "Pathologic Function", "DISO", "Disorders"),
    "T047": ("B2.2.1.2.1", "Disease or Syndrome", "DISO", "Disorders"),
}
TYPE_ROOT = "XO:0000001"
BRANCHES = {type_id: f"XO:{100 + number:07d}" for number, type_id in enumerate(sorted(TYPES))}


def write_rrf(folder: Path) -> Path:
    """Write MRCONSO.RRF, MRSTY.RRF and MRDEF.RRF of the vocabulary; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [
        (cui, name, name == names[0]) for cui, (_, names) in VOCABULARY.items() for name in names
    ]
    conso = [
        f"{cui}|ENG|{'P' if is_preferred else 'S'}|L{atom:07d}|PF|S{atom:07d}|"
        f"{'Y' if is_preferred else 'N'}"
        f"|A{atom:07d}||||MINI|{'PT' if is_preferred else 'SY'}|{cui}|{name}|0|N||"
        for atom, (cui, name, is_preferred) in enumerate(names, 1)
    ]
    sty = [
        f"{cui}|{type_id}|{TYPES[type_id][0]}|{TYPES[type_id][1]}|AT{number:07d}||"
        for number, (cui, (type_id, _)) in enumerate(VOCABULARY.items(), 1)
    ]
    _write_lines(folder / "MRCONSO.RRF", conso)
    _write_lines(folder / "MRSTY.RRF", sty)
    _write_lines(
        folder / "MRDEF.RRF", ["C9000002|A0000004|AT1||MINI|Too much sugar in the blood.|N||"]
    )
    return folder


def write_pubtator(path: Path) -> Path:
    """Write the corpus, 20 documents with 60 mentions, in the style of MedMentions ST21pv; returns
    the path.
    """
    blocks = []
    for pmid, (title, abstract) in zip(PMIDS, DOCUMENTS, strict=True):
        text, annotations = _read_marks(f"{title} {abstract}")
        length = len(_read_marks(title)[0])
        lines = [f"{pmid}|t|{text[:length]}", f"{pmid}|a|{text[length + 1 :]}"]
        for start, end, cui in annotations:
            type_id = VOCABULARY[cui][0] if cui in VOCABULARY else "UnknownType"
            lines.append(f"{pmid}\t{start}\t{end}\t{text[start:end]}\t{type_id}\tUMLS:{cui}")
        blocks.append("\n".join(lines) + "\n")
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def write_pmids(folder: Path) -> tuple[Path, Path]:
    """Write the document lists for training (8) and for the held-out splits (12); returns both
    paths.
    """
    train = folder / "pmids_train.txt"
    dev = folder / "pmids_dev.txt"
    _write_lines(train, TRAIN_PMIDS)
    _write_lines(dev, DEV_PMIDS)
    return train, dev


def write_obo(path: Path) -> Path:
    """Write the vocabulary as an ontology; the types are children of `TYPE_ROOT`; returns the
    path.
    """
    lines = [
        "format-version: 1.2",
        "ontology: xo",
        "",
        "[Term]",
        f"id: {TYPE_ROOT}",
        "name: Everything",
        "",
    ]
    for type_id, (_, name, *_) in sorted(TYPES.items()):
        lines += [
            "[Term]",
            f"id: {BRANCHES[type_id]}",
            f"name: {name}",
            f"is_a: {TYPE_ROOT} ! Everything",
            "",
        ]
    for number, (cui, (type_id, names)) in enumerate(VOCABULARY.items()):
        lines += ["[Term]", f"id: XO:{1000 + number:07d}", f"name: {names[0]}"]
        lines += [f'synonym: "{name}" EXACT []' for name in names[1:]]
        lines += [f"xref: UMLS:{cui}", f"is_a: {BRANCHES[type_id]} ! {TYPES[type_id][1]}", ""]
    _write_lines(path, lines)
    return path


def _read_marks(marked: str) -> tuple[str, list[tuple[int, int, str]]]:
    """Text without its marks, and ``(start, end, CUI)`` of each."""
    text = ""
    annotations = []
    for piece in marked.split("["):
        mark, bracket, rest = piece.partition("]")
        if bracket:
            mention, _, cui = mark.partition("|")
            annotations.append((len(text), len(text) + len(mention), cui))
            text += mention + rest
        else:
            text += piece
    return text, annotations


def _write_lines(path: Path, lines: list[str] | tuple[str, ...]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
