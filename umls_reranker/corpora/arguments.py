"""Keys of a recipe that this layer reads: concepts, and mentions with their splits."""

from dataclasses import dataclass, field

from ..core.keys import recipe_key


@dataclass
class ConceptArguments:
    """Concepts: where ids, names and types come from."""

    concept_source: str = recipe_key(
        "rrf",
        "rrf: a UMLS release; obo: an ontology with UMLS cross-references; "
        "names: a file of ids and names",
        ("rrf", "obo", "names"),
    )
    umls_dir: str | None = recipe_key(
        None,
        "rrf: folder with MRCONSO.RRF, MRSTY.RRF and optionally "
        "MRDEF.RRF, MRREL.RRF and MRCUI.RRF; each may be .gz",
    )
    languages: list[str] = recipe_key(["ENG"], "rrf: keep names in these languages (LAT)")
    sources: list[str] = recipe_key(
        [], "rrf: keep names from these source vocabularies (SAB); empty keeps all"
    )
    identifiers: str | None = recipe_key(
        None,
        "rrf: source (SAB, e.g. MSH) whose codes are the concept ids, "
        "with its names alone; unset: CUIs",
    )
    concept_types: list[str] = recipe_key(
        [],
        "keep concepts of these semantic types (ids), of narrower ones, and of these semantic "
        "groups (e.g. DISO); empty keeps all",
    )
    # Groups apart from types, as the settings of an index have them; no key of recipes.
    semantic_groups: list[str] = field(default_factory=list)
    obo: list[str] = recipe_key(
        [],
        "obo: local path, URL, or package:NAME/FILE of an ontology in OBO format (plain or .gz), "
        "or a list of them; names of the first take precedence",
    )
    obo_type_roots: list[str] = recipe_key([], "obo: terms whose children serve as semantic types")
    obo_synonym_scopes: list[str] = recipe_key(
        ["EXACT"], "obo: synonym scopes to keep (EXACT, NARROW, BROAD, RELATED)"
    )

    names: str | None = recipe_key(
        None,
        "names: local path or URL of a table (CSV, TSV, JSON Lines, Parquet) "
        "of id, name and optionally preferred and semantic_type, "
        "or of lines id|id||name|name (BioSyn); plain or .gz, #sha256=HEX as for corpus",
    )
    add_names: list[str] = recipe_key(
        [],
        "files, as for names, of further names of the dictionary's concepts, by its ids; a name of "
        "another concept, or of several, is left out and listed",
    )


@dataclass
class MentionArguments:
    """Mentions: annotated text, and its four splits by document."""

    mention_source: str = recipe_key(
        "corpus",
        "corpus: annotated text; held_out_synonyms: names removed from the dictionary",
        ("corpus", "held_out_synonyms"),
    )
    corpus: list[str] = recipe_key(
        [],
        "corpus: local path or URL of annotated text, plain or .gz, or a list of them; "
        "append #sha256=HEX to verify a file; or a folder of such files, "
        "or hf://datasets/OWNER/NAME of Parquet; the format is detected from the content",
    )
    train_documents: str | None = recipe_key(
        None,
        "corpus: file of document ids for training, one per line, or a file of the corpus",
    )
    dev_documents: str | None = recipe_key(
        None,
        "corpus: file, as for train_documents, of those to split into dev, calibration and test",
    )
    test_documents: str | None = recipe_key(
        None,
        "corpus: file, as for train_documents, of those of the test split; "
        "without it, the test split is a subset of dev_documents",
    )
    expected_mentions: int | None = recipe_key(
        None,
        "corpus: number of mentions in the whole corpus; "
        "any other number means an incomplete download",
        least=1,
    )
    train_share: float = recipe_key(
        0.6,
        "held_out_synonyms: share of the concepts for training",
        least=0.001,
        most=0.999,
    )
    dev_share: float = recipe_key(
        0.2, "share of the held-out documents for early stopping", least=0.001, most=0.999
    )
    calibration_share: float = recipe_key(
        0.4,
        "share of the held-out documents for calibrator and thresholds",
        least=0.001,
        most=0.999,
    )
    train_calibration_share: float = recipe_key(
        0.0,
        "share of train_documents used for calibration instead: certified coverage grows with the "
        "number of calibration documents, and training rarely needs the whole corpus",
        least=0,
        most=0.999,
    )
    annotation_types: list[str] = recipe_key(
        [], "corpus: keep only annotations of these types, such as Disease; empty keeps all"
    )
    expand_abbreviations: bool = recipe_key(
        False, "corpus: replace abbreviated mentions by the long form defined in their document"
    )
    split_composites: bool = recipe_key(
        False,
        "corpus: a composite mention of as many conjuncts as concepts, such as 'breast and ovarian "
        "cancer', becomes a mention for each, 'breast cancer' and 'ovarian cancer'",
    )
    concepts_of_mentions: bool = recipe_key(
        False,
        "corpus: add concepts that the dictionary lacks, under the texts that two documents use "
        "for them; documents of test do not count",
    )
