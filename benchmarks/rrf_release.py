#!/usr/bin/env python
"""Write a synthetic UMLS release in Rich Release Format, of any size, to measure readers with.

    python benchmarks/rrf_release.py OUT --rows 17000000

Writes MRCONSO, MRSTY and MRCUI (and MRREL with --relations 9) with the columns and the proportions
of a licensed release: 5 names a concept, two thirds English, one name in eight suppressible, 1.2
types a concept, 127 types, and a retired CUI for one concept in 25. The same arguments give the
same bytes. Names are composed from word elements; no name is taken from a vocabulary.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umls_reranker.vocab import types as semantic_types

CONCEPTS_PER_CHUNK = 50_000


def parted(text: str) -> list[str]:
    return text.split("|")


MODIFIERS = parted(
    "acute|chronic|severe|mild|primary|secondary|congenital|hereditary|idiopathic|benign|malignant|"
    "recurrent|bilateral|diffuse|focal|early-onset|juvenile|familial|atypical|post-traumatic|"
    "drug-induced|X-linked|autosomal dominant|non-specific|refractory|latent"
)
SITES = parted(
    "left ventricle|right kidney|liver|upper lobe of lung|frontal cortex|lumbar spine|skin|"
    "retina|thyroid gland|small intestine|bone marrow|aortic valve|cervix|pancreas|spleen|"
    "tongue|knee|femoral artery|optic nerve|hard palate|left index finger|mitral valve|"
    "gallbladder|adrenal cortex"
)
ROOTS = parted(
    "cardi|nephr|hepat|neur|gastr|oste|arthr|dermat|encephal|my|pneum|hemat|angi|lymph|aden|chondr|"
    "cyst|enter|fibr|gli|kerat|mening|pancreat|splen|thyr|vascul|bronch|col|derm|esophag|laryng|"
    "mast|ophthalm|phleb|rhin|spondyl|tendin|trache"
)
PREFIXES = parted(
    "|peri|hyper|hypo|endo|poly|pan|micro|macro|para|sub|pseudo|neo|dys|auto|immuno|lipo|myelo|"
    "cyto|histo|toxo|retino|uro|thrombo|sclero|pyo|oligo|xantho"
)
SUFFIXES = parted(
    "itis|opathy|oma|osis|algia|ectomy|oplasty|oscopy|emia|uria|odynia|ostomy|ogram|azole|amide|"
    "ofloxacin|idine|ostatin|otropin|ase|ogen|oxane|ylate|aldehyde|onium"
)
ENDINGS = parted(
    "|||, NOS| (disorder)| syndrome| disease| procedure| 20 MG oral tablet| measurement|"
    " [Ambiguous]| gene| protein, human| (finding)| in remission| without complication"
)
FOREIGN_ENDINGS = parted("a crónica|öse|ite aiguë|ção|病|оз| sin especificación|-Schädigung")
# LAT -> share of the names
LANGUAGES = {
    "ENG": 66,
    "SPA": 11,
    "FRE": 5,
    "POR": 4,
    "GER": 4,
    "JPN": 3,
    "RUS": 3,
    "DUT": 2,
    "CZE": 2,
}
# SAB and TTY -> share of the English names
TERMS = {
    ("SNOMEDCT_US", "PT"): 20,
    ("NCBI", "SCN"): 15,
    ("MTH", "PN"): 12,
    ("RXNORM", "SY"): 12,
    ("LNC", "LN"): 13,
    ("MSH", "ET"): 12,
    ("NCI", "SY"): 16,
}
ELEMENTS = (*MODIFIERS, *SITES, *ROOTS, *PREFIXES, *SUFFIXES, *ENDINGS)
NETWORK = json.loads(
    Path(semantic_types.__file__).with_name("semantic_network.json").read_text(encoding="utf-8")
)
# (TUI, name, tree number, group) of all 127 semantic types, the most frequent first.
TYPES = NETWORK["types"]
TYPE_SHARES = [1 / (rank + 3) for rank in range(len(TYPES))]
RELATIONS = {
    ("PAR", "inverse_isa"): 2,
    ("CHD", "isa"): 2,
    ("RO", "associated_with"): 4,
    ("SY", ""): 1,
    ("SIB", ""): 3,
}
NAME_FORMS = (0.30, 0.16, 0.14, 0.18, 0.06, 0.13, 0.03)
FOREIGN_FORM = len(NAME_FORMS)


class Draws:
    """Random columns of one length, from one seeded generator."""

    def __init__(self, size: int, *seed: int) -> None:
        self.size = size
        self.random = np.random.default_rng(seed)

    def codes(self, shares: Sequence[float]) -> np.ndarray:
        bounds = np.cumsum(shares) / np.sum(shares)
        return np.searchsorted(bounds[:-1], self.random.random(self.size), side="right")

    def of(self, values: Sequence[str], shares: Sequence[float] | None = None) -> pa.Array:
        """Some of `values`, drawn evenly or by `shares`."""
        return pa.array(values).take(pa.array(self.codes(shares or [1] * len(values))))

    def chance(self, share: float) -> np.ndarray:
        return self.random.random(self.size) < share

    def numbers(self, low: int, high: int) -> pa.Array:
        return pa.array(self.random.integers(low, high, self.size)).cast(pa.string())


def joined(*pieces: pa.Array | str, by: str = "") -> pa.Array:
    return pc.binary_join_element_wise(*pieces, by)


def numbered(letter: str, numbers: np.ndarray, digits: int) -> pa.Array:
    return joined(letter, pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0"))


def lines(*fields: pa.Array | str) -> bytes:
    """Rows whose fields each end in a pipe."""
    rows = joined(*fields, "\n", by="|")
    end = rows.buffers()[1].to_pybytes()[4 * len(rows) : 4 * len(rows) + 4]
    return rows.buffers()[2].slice(0, int.from_bytes(end, "little")).to_pybytes()


class Concepts:
    """A chunk of concepts and what their names are composed of.

    Attributes:
        cuis: ascending, with gaps, (size,).
        counts: names of each concept, (size,); 5 on average, a few have hundreds.
    """

    def __init__(self, first: int, size: int, seed: int) -> None:
        draws = Draws(size, seed, 0, first)
        self.cuis = numbered(
            "C", 2 * np.arange(first, first + size) + draws.random.integers(0, 2, size), 7
        )
        self.counts = np.minimum(
            1 + draws.random.poisson(1.2 + 4.2 * draws.random.pareto(2.5, size)), 500
        )
        root = pc.if_else(
            draws.chance(0.6), joined(draws.of(ROOTS), "o", draws.of(ROOTS)), draws.of(ROOTS)
        )
        number = pc.if_else(draws.chance(0.4), joined(" type ", draws.numbers(1, 900)), "")
        self.word = joined(draws.of(PREFIXES), root, draws.of(SUFFIXES), number)
        self.modifier = draws.of(MODIFIERS)
        self.site = draws.of(SITES)
        self.code = draws.numbers(10_000, 99_999_999)

    def keep_names(self, most: int) -> None:
        """Drop concepts from the end, and names of the last one left, down to `most` names."""
        ends = np.cumsum(self.counts)
        size = min(int(np.searchsorted(ends, most)) + 1, len(ends))
        self.counts = self.counts[:size].copy()
        self.counts[-1] -= max(0, int(ends[size - 1]) - most)
        self.cuis = self.cuis[:size]

    def names(self, concept: np.ndarray, forms: np.ndarray, seed: int) -> pa.Array:
        """A name for each entry of `concept`; spellings may repeat within and across concepts."""
        by_form = [np.flatnonzero(forms == form) for form in range(FOREIGN_FORM + 1)]
        pieces = []
        for form, entries in enumerate(by_form):
            elements = (
                part.take(pa.array(concept[entries]))
                for part in (self.word, self.modifier, self.site)
            )
            pieces.append(composed(form, *elements, Draws(len(entries), seed, form)))
        order = np.argsort(np.concatenate(by_form))
        return pa.concat_arrays(pieces).take(pa.array(order))


def composed(
    form: int, word: pa.Array, modifier: pa.Array, site: pa.Array, draws: Draws
) -> pa.Array:
    if form == 0:
        return joined(pc.utf8_capitalize(modifier), " ", word, " of ", site)
    if form == 1:
        return joined(pc.utf8_capitalize(word), ", ", modifier, ", ", site)
    if form == 2:
        return joined(pc.utf8_capitalize(site), " ", word, draws.of(ENDINGS))
    if form == 3:
        return joined(modifier, " ", word, draws.of(ENDINGS))
    if form == 4:
        return pc.utf8_upper(joined(word, " ", site))
    if form == 5:
        return joined(site, " ", modifier, " ", word)
    if form == FOREIGN_FORM:
        return joined(pc.utf8_capitalize(word), draws.of(FOREIGN_ENDINGS), " ", site)
    # An abbreviation: a few stand for many concepts, most for one or two.
    letters = [
        pc.utf8_slice_codeunits(part, 0, most)
        for part, most in ((word, 3), (site, 1), (modifier, 2))
    ]
    number = pa.array(np.minimum(draws.random.pareto(0.6, draws.size), 999).astype(np.int64)).cast(
        pa.string()
    )
    return joined(pc.utf8_upper(joined(*letters)), number)


def mrconso(concepts: Concepts, first_atom: int, seed: int) -> bytes:
    """MRCONSO rows of a chunk; a concept's first row is its preferred name, mostly English."""
    concept = np.repeat(np.arange(len(concepts.counts)), concepts.counts)
    draws = Draws(len(concept), seed, 1, first_atom)
    leads = np.diff(concept, prepend=-1) > 0
    languages = pc.if_else(
        leads & draws.chance(0.97), "ENG", draws.of(list(LANGUAGES), list(LANGUAGES.values()))
    )
    english = pc.equal(languages, "ENG").to_numpy(zero_copy_only=False)
    terms = pa.array(draws.codes(list(TERMS.values())))
    forms = np.where(english, draws.codes(NAME_FORMS), FOREIGN_FORM)
    atoms = np.arange(first_atom, first_atom + len(concept))
    of_concept = pa.array(concept)
    return lines(
        concepts.cuis.take(of_concept),
        languages,
        pc.if_else(leads, "P", draws.of(["S", "P", "s"], [7, 2, 1])),
        numbered("L", atoms % 9_000_000, 7),
        pc.if_else(leads, "PF", draws.of(["PF", "VO", "VC", "VW"], [11, 4, 3, 2])),
        numbered("S", atoms, 8),
        pc.if_else(leads, "Y", draws.of(["Y", "N"])),
        numbered("A", atoms, 8),
        pc.if_else(draws.chance(0.5), draws.numbers(1_000, 9_999_999), ""),
        pc.if_else(draws.chance(0.7), concepts.code.take(of_concept), ""),
        "",
        pc.if_else(english, pa.array([source for source, _ in TERMS]).take(terms), "SCTSPA"),
        pc.if_else(english, pa.array([term_type for _, term_type in TERMS]).take(terms), "PT"),
        concepts.code.take(of_concept),
        concepts.names(concept, forms, int(draws.random.integers(2**31))),
        draws.of(["0", "3", "9"], [16, 2, 2]),
        pc.if_else(leads, "N", draws.of(["N", "O", "Y", "E"], [85, 9, 5, 1])),
        draws.of(["", "256"], [4, 1]),
    )


def mrsty(concepts: Concepts, first: int, seed: int) -> bytes:
    """One or two types a concept, the second one close to the first in the network."""
    draws = Draws(len(concepts.cuis), seed, 2, first)
    types = draws.codes(TYPE_SHARES)
    second = (types < len(TYPES) - 1) & draws.chance(0.2)
    concept = np.repeat(np.arange(draws.size), 1 + second)
    kind = pa.array(types[concept] + (np.diff(concept, prepend=-1) == 0))
    return lines(
        concepts.cuis.take(pa.array(concept)),
        pa.array([tui for tui, *_ in TYPES]).take(kind),
        pa.array([tree for _, _, tree, _ in TYPES]).take(kind),
        pa.array([name for _, name, *_ in TYPES]).take(kind),
        numbered("AT", 2 * first + np.arange(len(concept)), 8),
        pa.repeat("256", len(concept)),
    )


def mrrel(concepts: Concepts, first: int, seed: int, number: int) -> bytes:
    """So many relations a concept, to concepts of the same chunk."""
    draws = Draws(number * len(concepts.cuis), seed, 5, first)
    kind = pa.array(draws.codes(list(RELATIONS.values())))
    other = concepts.cuis.take(pa.array(draws.random.integers(0, len(concepts.cuis), draws.size)))
    cuis = concepts.cuis.take(pa.array(np.arange(draws.size) // number))
    sources = draws.of(["SNOMEDCT_US", "MSH", "NCI"])
    return lines(
        cuis,
        "",
        "CUI",
        pa.array([relation for relation, _ in RELATIONS]).take(kind),
        other,
        "",
        "CUI",
        pa.array([attribute for _, attribute in RELATIONS]).take(kind),
        numbered("R", number * first + np.arange(draws.size), 9),
        "",
        sources,
        sources,
        "",
        "",
        draws.of(["N", "O"], [9, 1]),
        "",
    )


def mrcui(concepts: Concepts, first: int, seed: int) -> bytes:
    """A CUI that was merged into a concept, or that was deleted, for one concept in 25."""
    draws = Draws(len(concepts.cuis), seed, 6, first)
    cuis = concepts.cuis.filter(pa.array(draws.chance(1 / 25)))
    draws = Draws(len(cuis), seed, 7, first)
    numbers = pc.cast(pc.utf8_slice_codeunits(cuis, 1), pa.int64()).to_numpy()
    is_deleted = draws.chance(1 / 6)
    return lines(
        # Of each two numbers one is in use.
        numbered("C", numbers ^ 1, 7),
        draws.of(["2018AA", "2021AB"]),
        pc.if_else(is_deleted, "DEL", "SY"),
        "",
        "",
        pc.if_else(is_deleted, "", cuis),
        pc.if_else(is_deleted, "", "Y"),
    )


def write_release(folder: Path, rows: int, seed: int, relations: int) -> None:
    """Write the release; MRCONSO has exactly `rows` lines, MRREL `relations` a concept."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"MRSTY": mrsty, "MRCUI": mrcui}
    if relations:
        makers["MRREL"] = partial(mrrel, number=relations)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / f"{name}.RRF").open("wb"))
            for name in ("MRCONSO", *makers)
        }
        first = 1
        atoms = 0
        while atoms < rows:
            concepts = Concepts(first, CONCEPTS_PER_CHUNK, seed)
            concepts.keep_names(rows - atoms)
            files["MRCONSO"].write(mrconso(concepts, atoms, seed))
            for name, maker in makers.items():
                files[name].write(maker(concepts, first, seed))
            first += len(concepts.cuis)
            atoms += int(concepts.counts.sum())
    print(f"{atoms:,} names of {first - 1:,} concepts in {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--rows", type=int, default=17_000_000, help="lines of MRCONSO")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument(
        "--relations", type=int, default=0, help="lines of MRREL per concept (default: no MRREL)"
    )
    arguments = parser.parse_args()
    write_release(arguments.out, arguments.rows, arguments.seed, arguments.relations)


if __name__ == "__main__":
    main()
