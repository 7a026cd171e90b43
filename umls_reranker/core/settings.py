"""Sections of a recipe, one dataclass per stage, and the extension points whose entries are choices of their keys.

`umls_reranker.core.recipe` reads the sections from YAML and the command line; that of training is in
`training_arguments`. Keys are unique over all sections, so a recipe is one flat YAML file.

Features, calibrators and retrievers register here, in the lowest layer, because choices and help of recipe keys follow
from them. The package's own are in `calibration.features`, `calibration.calibrators` and `retrieval.retrievers`;
``umls_reranker/__init__.py`` says where.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    import numpy as np

# What a feature can be made of, as `calibration.inputs` names it, besides scores and the candidate's name.
FEATURE_INPUTS = ("entity_type", "context", "cui", "semantic_types")
CROSS_ENCODER = "cross_encoder"
Entry = TypeVar("Entry")


class Registry(MutableMapping[str, Entry]):
    """Entries of a kind by name; those of the package are imported at the first lookup.

    Args:
        kind: kind of the entries, for messages.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, Entry] = {}
        self._imports: list[Callable[[], object]] = []

    def import_by(self, load: Callable[[], object]) -> None:
        """Set the function that imports the module that registers entries."""
        self._imports.append(load)

    def _loaded(self) -> dict[str, Entry]:
        while self._imports:
            self._imports.pop()()
        return self._entries

    def __getitem__(self, name: str) -> Entry:
        return self._loaded()[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is already registered")
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._loaded()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())


@dataclass(frozen=True)
class Feature:
    """A number about each candidate of a list; a higher value never lowers a candidate's probability.

    Attributes:
        name: its name in recipes and ``calibrator.json``.
        help: one line about it.
        column: makes the column, (m,) float64, from `calibration.features.FeatureSources`; NaN where an input is
            missing. None: it comes with the lists, as scores of retrievers do, or from the network.
        inputs: the inputs of `FEATURE_INPUTS`, or ``NAME_score``, that it needs. A fallback model decides about
            requests that lack one of them.
    """

    name: str
    help: str
    column: Callable[[Any], np.ndarray] | None = None
    inputs: tuple[str, ...] = ()


FEATURES: Registry[Feature] = Registry("feature")
# Subclasses of `calibration.calibrators.Calibrator`, which declare name and help.
CALIBRATORS: Registry[type[Any]] = Registry("calibrator")


class AUTO:
    """The choice of the calibrator with the lowest held-out loss."""

    help = "the one with the lowest cross-validated log loss, folds by document"


def register_feature(feature: Feature) -> None:
    """Add a feature to those that recipes can name.

    Raises:
        ValueError: its name is taken, or it has an unknown input.
    """
    unknown = [name for name in feature.inputs if name not in FEATURE_INPUTS and not name.endswith("_score")]
    if unknown:
        raise ValueError(
            f"{feature.name}: unknown inputs {unknown}; choose from {', '.join(FEATURE_INPUTS)}, NAME_score"
        )
    FEATURES[feature.name] = feature


def register_calibrator(calibrator: type[Any]) -> None:
    """Add a subclass of `calibration.calibrators.Calibrator` to those that recipes can name.

    Raises:
        ValueError: its name is taken.
    """
    CALIBRATORS[calibrator.name] = calibrator


register_feature(Feature(CROSS_ENCODER, "log-odds of the cross-encoder"))


# What an index can be built from.
INDEX_INPUTS = ("concepts", "mentions", "encoder", "vectors")


class RetrieverDeclaration:
    """A retriever's name, what its index is built from, and the score that it gives.

    Attributes:
        name: its name in the recipe key `retrievers` and in figures of recall.
        help: one line about it.
        folder: folder of its index in a run, and name of the stage that builds it; None: it has no index of its own.
        inputs: what the index is built from, and rebuilt with if it changes: ``concepts`` (the dictionary),
            ``mentions`` (of the training split), ``encoder`` (the bi-encoder), ``vectors`` (of the names).
        reads_context: whether it searches for the mention in its text.
        score_name: NAME of the key ``NAME_score`` of candidates and of the feature; None: it gives no scores.
        score_help: one line about this feature.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    folder: ClassVar[str | None] = None
    inputs: ClassVar[tuple[str, ...]] = ("concepts",)
    reads_context: bool = False
    score_name: ClassVar[str | None] = None
    score_help: ClassVar[str] = ""

    @staticmethod
    def settings(recipe: Any) -> dict[str, Any]:
        """Further values that decide the index, of a `Recipe` and the version of its files; for JSON."""
        return {}

    @classmethod
    def score_inputs(cls) -> tuple[str, ...]:
        """Inputs of the feature, as `calibration.inputs` names them."""
        return (*(("context",) if cls.reads_context else ()), f"{cls.score_name}_score")


# Name -> retriever, in the order of their lists in a union.
RETRIEVERS: dict[str, type[RetrieverDeclaration]] = {}
# Name of the score -> the retriever that gives it. Such scores count only with the index key.
SCORES: dict[str, type[RetrieverDeclaration]] = {}
# The score of candidates that only training reads, where they have it; no feature.
TEACHER = "teacher"


def register_retriever(retriever: type[RetrieverDeclaration]) -> None:
    """Add a retriever to those that recipes can name.

    Raises:
        ValueError: its name, folder or score is taken, or its index has an unknown input.
    """
    for former in RETRIEVERS.values():
        for key in ("name", "folder", "score_name"):
            value = getattr(retriever, key)
            if value is not None and value == getattr(former, key):
                raise ValueError(f"the retriever {former.name} already has the {key} {value!r}")
    if unknown := {*retriever.inputs} - {*INDEX_INPUTS}:
        raise ValueError(f"{retriever.name}: unknown inputs {sorted(unknown)}; choose from {', '.join(INDEX_INPUTS)}")
    if retriever.score_name is not None:
        register_feature(Feature(retriever.score_name, retriever.score_help, inputs=retriever.score_inputs()))
        SCORES[retriever.score_name] = retriever
    RETRIEVERS[retriever.name] = retriever


def chosen_retrievers(names: Iterable[str]) -> list[type[RetrieverDeclaration]]:
    """The retrievers of a recipe, in the order of `RETRIEVERS`."""
    chosen = {*names}
    return [retriever for name, retriever in RETRIEVERS.items() if name in chosen]


def index_folders(names: Iterable[str]) -> list[str]:
    """Folders of the indexes that a recipe's retrievers need."""
    return [retriever.folder for retriever in chosen_retrievers(names) if retriever.folder is not None]


# Backend -> the file of its network in a model folder; Optimum and sentence-transformers look for ONNX there, too.
BACKENDS = {"torch": "model.safetensors", "onnx": "onnx/model.onnx"}
# How much worse than the previous version a new one may be and still count as not inferior.
USUAL_MARGIN = 0.02
LARGEST = 2**32 - 1
DTYPES = ("auto", "float32", "bfloat16", "float16")


def recipe_key(default: object, help: str, choices: Collection[str] | None = None) -> Any:
    """A field of a section, with its text and choices in ``--help``.

    Args:
        default: value of a recipe without this key.
        help: text of the key in ``--help``.
        choices: the allowed values; in a mapping, each with an object whose attribute `help` explains it.
    """
    # Any, as dataclasses.field has it: the value has the type of its annotation.
    metadata: dict[str, Any] = {"help": help}
    if choices is not None:
        # With a word for it, argparse lists no choices, which would import what registers them.
        metadata |= {"choices": choices, "metavar": "NAME"}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunArguments:
    """Where the run is stored, and settings of all stages."""

    run_name: str = recipe_key("run", "name of the run; output goes to OUTPUT_DIR/RUN_NAME")
    output_dir: str = recipe_key("runs", "folder that holds the runs")
    cache_dir: str = recipe_key(".cache", "folder for files fetched from a URL, and for the hashes of unchanged files")
    seed: int = recipe_key(13, "seed of splits, mining, initial weights and data order")
    device: str = recipe_key("auto", "cpu, cuda, cuda:1, mps; auto uses a GPU if available")
    scoring_dtype: str = recipe_key(
        "auto",
        "dtype of scoring, and so of calibration; auto is bfloat16 if the CPU or GPU supports it, float16 on older "
        "GPUs, else float32",
        DTYPES,
    )
    overwrite: bool = recipe_key(False, "rerun the stage from scratch, even if it is up to date")
    dry_run: bool = recipe_key(False, "check the inputs and print what would be written, without writing it")

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.run_name

    @property
    def scoring(self) -> dict[str, str]:
        """Device and dtype, as `UMLSReranker.from_pretrained` takes them."""
        return {"device": self.device, "dtype": self.scoring_dtype}


@dataclass
class ConceptArguments:
    """Concepts: where ids, names and types come from."""

    concept_source: str = recipe_key(
        "rrf",
        "rrf: a UMLS release; obo: an ontology with UMLS cross-references; names: a file of ids and names",
        ("rrf", "obo", "names"),
    )
    umls_dir: str | None = recipe_key(
        None,
        "rrf: folder with MRCONSO.RRF, MRSTY.RRF and optionally MRDEF.RRF, MRREL.RRF and MRCUI.RRF; each may be .gz",
    )
    languages: list[str] = recipe_key(["ENG"], "rrf: keep names in these languages (LAT)")
    sources: list[str] = recipe_key([], "rrf: keep names from these source vocabularies (SAB); empty keeps all")
    identifiers: str | None = recipe_key(
        None, "rrf: source (SAB, e.g. MSH) whose codes are the concept ids, with its names alone; unset: CUIs"
    )
    concept_types: list[str] = recipe_key(
        [], "keep concepts of these semantic types (ids) and of narrower ones; empty keeps all"
    )
    semantic_groups: list[str] = recipe_key(
        [],
        "rrf: also keep concepts of these semantic groups (e.g. DISO); all concepts are kept if this and "
        "concept_types are empty",
    )
    obo: list[str] = recipe_key(
        [],
        "obo: local path, URL, or package:NAME/FILE of an ontology in OBO format (plain or .gz), or a list of them; "
        "names of the first take precedence",
    )
    obo_type_roots: list[str] = recipe_key([], "obo: terms whose children serve as semantic types")
    obo_synonym_scopes: list[str] = recipe_key(
        ["EXACT"], "obo: synonym scopes to keep (EXACT, NARROW, BROAD, RELATED)"
    )

    names: str | None = recipe_key(
        None,
        "names: local path or URL of a table (CSV, TSV, JSON Lines, Parquet) of id, name and optionally preferred and "
        "semantic_type, or of lines id|id||name|name (BioSyn); plain or .gz, #sha256=HEX as for corpus",
    )

    @property
    def names_dictionary(self) -> bool:
        """Whether the recipe names a dictionary; candidate lists work without one."""
        return self.concept_source != "rrf" or self.umls_dir is not None


@dataclass
class MentionArguments:
    """Mentions: annotated text, and its four splits by document."""

    mention_source: str = recipe_key(
        "corpus",
        "corpus: annotated text; held_out_synonyms: names removed from the dictionary",
        ("corpus", "held_out_synonyms"),
    )
    candidate_lists: str | None = recipe_key(
        None,
        "user-provided candidate lists, in place of corpus, index and retrieval: file or folder of mentions with "
        "candidates (.jsonl, .csv, .tsv, .parquet, .arrow), in the format of umls-reranker rerank, top candidate "
        "first; each mention has doc_id, cui (the gold concept) and, unless train_documents or the shares assign it, "
        "split (train, dev, calibration, test); candidate scores are named NAME_score; a dictionary (umls_dir, obo "
        "or names) is optional",
    )
    corpus: list[str] = recipe_key(
        [],
        "corpus: local path or URL of annotated text, plain or .gz, or a list of them; append #sha256=HEX to verify "
        "a file; or a folder of such files, or hf://datasets/OWNER/NAME of Parquet; the format is detected from the "
        "content",
    )
    train_documents: str | None = recipe_key(
        None, "corpus, candidate_lists: file of document ids for training, one per line, or a file of the corpus"
    )
    dev_documents: str | None = recipe_key(
        None, "corpus, candidate_lists: file, as for train_documents, of those to split into dev, calibration and test"
    )
    test_documents: str | None = recipe_key(
        None,
        "corpus, candidate_lists: file, as for train_documents, of those of the test split; without it, the test "
        "split is a subset of dev_documents",
    )
    expected_mentions: int | None = recipe_key(
        None,
        "corpus: number of mentions in the whole corpus; any other number means an incomplete download",
    )
    train_share: float = recipe_key(
        0.6, "held_out_synonyms: share of the concepts for training; candidate_lists: of the documents"
    )
    dev_share: float = recipe_key(0.2, "share of the held-out documents for early stopping")
    calibration_share: float = recipe_key(0.4, "share of the held-out documents for calibrator and thresholds")
    train_calibration_share: float = recipe_key(
        0.0,
        "share of train_documents used for calibration instead: certified coverage grows with the number of "
        "calibration documents, and training rarely needs the whole corpus",
    )
    annotation_types: list[str] = recipe_key(
        [], "corpus: keep only annotations of these types, such as Disease; empty keeps all"
    )
    expand_abbreviations: bool = recipe_key(
        False, "corpus: replace abbreviated mentions by the long form defined in their document"
    )
    split_composites: bool = recipe_key(
        False,
        "corpus: a composite mention of as many conjuncts as concepts, such as 'breast and ovarian cancer', becomes a "
        "mention for each, 'breast cancer' and 'ovarian cancer'",
    )
    concepts_of_mentions: bool = recipe_key(
        False,
        "corpus: add concepts that the dictionary lacks, under the texts that two documents use for them; documents "
        "of test do not count",
    )


@dataclass
class EncoderArguments:
    """Encoder: how the bi-encoder is fine-tuned before it embeds the names; by default it is not."""

    encoder_training_steps: int = recipe_key(
        0, "optimizer steps; 0 uses the encoder without fine-tuning and without context"
    )
    encoder_learning_rate: float = recipe_key(1e-4, "AdamW peak learning rate")
    encoder_dropout: float | None = recipe_key(
        None,
        "dropout in training; 0 works better with few passes over the mentions; empty: the model's default (BERT: "
        "0.1)",
    )


@dataclass
class IndexArguments:
    """Index: a bi-encoder over all names, and the candidates it retrieves."""

    encoder: str = recipe_key("cambridgeltl/SapBERT-from-PubMedBERT-fulltext", "bi-encoder: Hub id or local folder")
    encoder_revision: str | None = recipe_key(None, "bi-encoder: revision on the Hub (commit, tag or branch)")
    encoder_pooling: str = recipe_key(
        "cls", "pooling of token vectors: cls (SapBERT) or mean (MiniLM)", ("cls", "mean")
    )
    encoder_max_length: int = recipe_key(32, "maximum tokens per name; longer names are truncated")
    encoder_dtype: str = recipe_key("auto", "dtype of the bi-encoder", DTYPES)
    index_factory: str = recipe_key(
        "Flat",
        "FAISS factory string: Flat (exact), IVF16384,SQfp16, HNSW32,SQ8, PQ96 and so on; inexact indexes are "
        "compared with exact search; HNSW builds are reproducible only with OMP_NUM_THREADS=1",
    )
    index_parameters: str | None = recipe_key(
        None,
        "FAISS search parameters: nprobe=128 (clusters to search; required for IVF) or efSearch=128 (HNSW)",
    )
    retrievers: list[str] = recipe_key(["dense"], "retrievers of the candidates; several are combined", RETRIEVERS)
    candidates_per_mention: int = recipe_key(32, "candidates retrieved per held-out mention")


@dataclass
class MiningArguments:
    """Pairs: negatives per positive, and their weights in the loss."""

    nearest_negatives: int = recipe_key(5, "nearest-neighbor negatives per mention")
    same_type_negatives: int = recipe_key(
        2, "random negatives per mention that share a semantic type with the gold concept"
    )
    random_negatives: int = recipe_key(2, "random concepts")
    positive_weight: float = recipe_key(1.0, "weight of a positive pair in the loss")
    hard_negative_weight: float = recipe_key(1.5, "weight of a nearest-neighbor negative")
    max_train_mentions: int | None = recipe_key(
        None,
        "maximum number of training mentions, sampled with the seed from those whose concept is in the dictionary",
    )
    teacher: list[str] = recipe_key(
        [],
        "models of one logit (local folders or Hub ids) whose mean the losses margin_mse and listwise_kl learn; with "
        "candidate_lists, their teacher_score instead, if this is empty",
    )


@dataclass
class ModelArguments:
    """Model: the cross-encoder's base and the text it reads."""

    model: str = recipe_key("cambridgeltl/SapBERT-from-PubMedBERT-fulltext", "base model: Hub id or local folder")
    model_revision: str | None = recipe_key(None, "base model: revision on the Hub")
    attn_implementation: str | None = recipe_key(
        None,
        "attention in training; empty: the fastest that torch has (flash_attention_2 needs flash-attn and a GPU)",
        ("eager", "sdpa", "flash_attention_2"),
    )
    start_from_encoder: bool = recipe_key(
        False, "initialize from the run's fine-tuned encoder instead of the base model"
    )
    max_length: int = recipe_key(64, "maximum tokens per pair, special tokens included; truncated pairs are counted")
    context_tokens: int = recipe_key(0, "tokens of context on each side of the mention; 0: no context")
    mention_types: bool = recipe_key(False, "append the names of the mention's semantic types to it, if known")
    candidate_fields: list[str] = recipe_key(
        [],
        "fields appended to the candidate's best-matching name: preferred_name (distinguishes concepts with the same "
        "name), definition (its first 160 characters)",
        ("preferred_name", "definition"),
    )


@dataclass
class CalibrationArguments:
    """Calibration: from logits to probabilities, thresholds and tiers."""

    features: list[str] | None = recipe_key(
        None,
        "features of the fusion; a higher value never lowers a probability; with candidate_lists also NAME for each "
        "NAME_score; unset: all, including the scores in the lists; []: the cross-encoder alone, without fusion",
    )
    calibrator: str = recipe_key(
        "auto",
        "increasing map from log-odds to calibrated log-odds; with features, within a mention's list",
        ChainMap[str, Any]({"auto": AUTO}, CALIBRATORS),
    )
    target_precision: float = recipe_key(0.95, "certified precision of the high-confidence tier")
    confidence: float = recipe_key(0.95, "confidence level of that certificate")
    accept_precision: float | None = recipe_key(
        None, "precision on held-out documents that sets one threshold of acceptance; unset: the highest F1, by type"
    )


@dataclass
class EvaluationArguments:
    """Evaluation: the report on the test split, and the targets it is checked against."""

    bootstrap_resamples: int = recipe_key(1000, "bootstrap resamples of documents for the 95 % intervals")
    targets: list[str] = recipe_key(
        [], 'metrics that umls-reranker validate checks, e.g. "acc@1 >= 0.75"; a missed target fails the run'
    )
    margin: float = recipe_key(
        USUAL_MARGIN,
        "non-inferiority margin for a new version (validate --against): how much lower its acc@1 and F1 may "
        "be than those of the previous version; half of it for how much higher its Brier score of top candidates may "
        "be",
    )


@dataclass
class PublishArguments:
    """Publishing: the Hub repo."""

    repo_id: str | None = recipe_key(None, "Hub repo, e.g. org/sapbert-umls-reranker")
    tag: str | None = recipe_key(None, "tag of this version, e.g. v1.0.0; an existing tag is never overwritten")
    private: bool = recipe_key(
        True, "create a new repo as private (the Hub's default is public), and refuse an existing public one"
    )


@dataclass
class ServingArguments:
    """Serving: what a deployment loads, and its limits."""

    served_model: str | None = recipe_key(None, "reranker: Hub repo or local folder")
    served_revision: str | None = recipe_key(None, "tag, branch or commit of that repo; pin a tag in production")
    served_index: str | None = recipe_key(
        None,
        "folder written by umls-reranker export_index, or a run folder; empty: the service ranks but does not link",
    )
    accept_tier: str = recipe_key(
        "medium",
        "lowest tier that is accepted at rank 1; medium: the model's thresholds; high: only what the certificate "
        "covers",
        ("medium", "high"),
    )
    backend: str = recipe_key(
        "torch",
        "torch, or onnx: what umls-reranker export wrote, served without torch",
        tuple(BACKENDS),
    )
    token_budget: int | None = recipe_key(
        None, "tokens per forward pass, padding included; empty: 1024 on a CPU, 65536 on a GPU"
    )
    batch_mentions: int = recipe_key(64, "maximum mentions per batch")
    host: str = recipe_key("127.0.0.1", "address to listen on")
    port: int = recipe_key(8080, "port to listen on; 0 chooses a free one")
    max_queue: int = recipe_key(512, "maximum mentions queued or being ranked; further requests get status 429")
    max_candidates: int = recipe_key(256, "maximum candidates (texts) per mention")
    max_request_mentions: int = recipe_key(64, "maximum mentions per request")
    auto_truncate: bool = recipe_key(
        True, "/rerank: truncate long texts if the request does not say; false rejects them"
    )


# Lowest and highest value of numbers, by recipe key or option of a command.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("encoder_training_steps", "nearest_negatives", "same_type_negatives", "random_negatives", "context_tokens"),
        (0, LARGEST),
    ),
    **dict.fromkeys(
        ("expected_mentions", "encoder_max_length", "candidates_per_mention", "count", "max_train_mentions"),
        (1, LARGEST),
    ),
    **dict.fromkeys(
        ("max_length", "token_budget", "batch_mentions", "max_queue", "bootstrap_resamples"), (1, LARGEST)
    ),
    **dict.fromkeys(("max_candidates", "max_request_mentions", "global_batch_size", "max_dev_pairs"), (1, LARGEST)),
    **dict.fromkeys(("early_stopping_patience", "per_device_train_batch_size", "save_total_limit"), (1, LARGEST)),
    **dict.fromkeys(("positive_weight", "hard_negative_weight", "learning_rate", "head_learning_rate"), (0, LARGEST)),
    **dict.fromkeys(("encoder_dropout", "dropout", "margin", "random_share", "alpha"), (0, 1)),
    **dict.fromkeys(("train_share", "dev_share", "calibration_share"), (0.001, 0.999)),
    "train_calibration_share": (0, 0.999),
    **dict.fromkeys(("target_precision", "confidence", "accept_precision"), (0.01, 0.999)),
    "eval_steps": (1e-6, LARGEST),
    "port": (0, 65_535),
    "seed": (0, LARGEST),
}
