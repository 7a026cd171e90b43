"""Recipe sections: one dataclass per stage. `umls_reranker.core.recipe` reads them from YAML and the command line.

The training section is in `trainer_fields`.

Keys are unique over all sections, so a recipe is one flat YAML file. If a default differs from the library's, the
help says so.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .retrievers import RETRIEVERS
from .sockets import AUTO, CALIBRATORS, FEATURES

# Backend -> the file of its network in a model folder; Optimum and sentence-transformers look for ONNX there, too.
BACKENDS = {"torch": "model.safetensors", "onnx": "onnx/model.onnx"}
# By how much a new version may be worse than the former and count as as good.
USUAL_MARGIN = 0.02
DTYPES = ("auto", "float32", "bfloat16", "float16")


def recipe_key(
    default: object,
    help: str,
    choices: Collection[str] | None = None,
    group: str | None = None,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    rare: bool = False,
    is_open: bool = False,
) -> Any:
    """A field of a section, with its text, choices and heading in ``--help`` (None: the section's heading).

    Args:
        default: value of a recipe without this key.
        help: text of the key in ``--help``.
        choices: the allowed values; in a mapping, each with an object whose attribute `help` explains it.
        group: heading in ``--help``.
        least: lowest value of a number in a recipe or on the command line, which is always finite.
        most: highest value of such a number.
        rare: whether only ``--help_all`` explains it.
        is_open: whether values other than `choices` are allowed, which the room that reads them checks.
    """
    # Any, as dataclasses.field has it: the value has the type of its annotation.
    metadata: dict[str, Any] = {"help": help, "choices": choices, "group": group, "range": (least, most)}
    metadata |= {"open": is_open, "rare": rare}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunArguments:
    """Where the run is stored, and settings of all stages."""

    run_name: str = recipe_key("run", "name of the run; output goes to OUTPUT_DIR/RUN_NAME")
    output_dir: str = recipe_key("runs", "folder that holds the runs")
    cache_dir: str = recipe_key(
        ".cache", "folder for files fetched from a URL, and for the hashes of unchanged files", rare=True
    )
    seed: int = recipe_key(13, "seed of splits, mining, initial weights and data order", least=0, most=2**32 - 1)
    device: str = recipe_key("auto", "cpu, cuda, cuda:1, mps; auto uses a GPU if there is one")
    scoring_dtype: str = recipe_key(
        "auto",
        "number format of scoring, and so of calibration; auto is bfloat16 if the CPU or GPU supports it, float16 on "
        "older GPUs, else float32",
        DTYPES,
        rare=True,
    )
    stage_minutes: dict | None = recipe_key(
        None,
        "command -> minutes it took when the recipe was recorded; umls-reranker run estimates the time left from them",
        rare=True,
    )
    overwrite: bool = recipe_key(False, "run the stage again from the beginning, even if it is up to date")
    dry_run: bool = recipe_key(False, "check the inputs and say what would be made, without making it")

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.run_name

    @property
    def scoring(self) -> dict[str, str]:
        """Device and dtype, as `UMLSReranker.from_pretrained` takes them."""
        return {"device": self.device, "dtype": self.scoring_dtype}


@dataclass
class ConceptArguments:
    """Concepts: where CUIs, names and types come from."""

    concept_source: str = recipe_key(
        "rrf", "rrf: a UMLS release; obo: an ontology with UMLS cross references", ("rrf", "obo")
    )
    umls_dir: str | None = recipe_key(
        None,
        "rrf: folder with MRCONSO.RRF, MRSTY.RRF and optionally MRDEF.RRF, MRREL.RRF, MRCUI.RRF and MRSAB.RRF; each "
        "may be .gz, or in the parts .aa.gz, .ab.gz and so on",
    )
    semantic_network_dir: str | None = recipe_key(
        None,
        "rrf: folder with SRDEF (the release's NET folder) and optionally SemGroups.txt; empty: built-in types and "
        "groups",
    )
    languages: list[str] = recipe_key(["ENG"], "rrf: keep names in these languages (LAT)")
    sources: list[str] = recipe_key(
        [], "rrf: keep names from these source vocabularies (SAB); empty keeps all", rare=True
    )
    term_types: list[str] = recipe_key(
        [], "rrf: keep names of these term types (TTY, e.g. PT, SY); empty keeps all", rare=True
    )
    concept_types: list[str] = recipe_key(
        [], "keep concepts of these semantic types (ids); empty keeps all", rare=True
    )
    semantic_groups: list[str] = recipe_key(
        [],
        "rrf: also keep concepts of these semantic groups (e.g. DISO); all concepts are kept if this and "
        "concept_types are empty",
        rare=True,
    )
    relations: list[str] = recipe_key(
        ["PAR", "CHD", "RB", "RN", "SY"],
        "rrf: relations of MRREL to keep, if there is such a file; a negative has none of them to the gold concept; "
        "empty: do not read it",
        ("SY", "PAR", "CHD", "RB", "RN", "SIB"),
        rare=True,
    )
    obo: str | list[str] | None = recipe_key(
        None,
        "obo: local path, URL, or package:NAME/FILE of an ontology (OBO or OBO Graphs JSON, plain or .gz), or a "
        "list of them; the first one's names are preferred",
    )
    obo_type_roots: list[str] = recipe_key([], "obo: terms whose children serve as semantic types")
    obo_synonym_scopes: list[str] = recipe_key(
        ["EXACT"], "obo: synonym scopes to keep (EXACT, NARROW, BROAD, RELATED)", rare=True
    )

    @property
    def names_dictionary(self) -> bool:
        """Whether the recipe names a dictionary; candidate lists work without one."""
        return self.concept_source == "obo" or self.umls_dir is not None


@dataclass
class MentionArguments:
    """Mentions: annotated text, and its four splits by document."""

    mention_source: str = recipe_key(
        "corpus",
        "corpus: annotated text; held_out_synonyms: names taken out of the concepts",
        ("corpus", "held_out_synonyms"),
    )
    candidate_lists: str | None = recipe_key(
        None,
        "instead of corpus, index and retrieval: file or folder of mentions with candidates from your own pipeline "
        "(.jsonl, .csv, .tsv, .parquet, .arrow), in the format of umls-reranker rerank, best candidates first; each "
        "mention has doc_id, cui (the right concept) and, unless train_documents or the shares decide it, split "
        "(train, dev, calibration, test); scores of candidates are named NAME_score; a dictionary (umls_dir, or obo "
        "with concept_source: obo) is optional",
    )
    corpus: str | list[str] | None = recipe_key(
        None,
        "corpus: local path or URL of annotated text, plain or .gz, or a list of them; #sha256=HEX at the end checks "
        "a file; or a folder or hf://datasets/OWNER/NAME of Parquet; the format is recognized by content",
    )
    train_documents: str | None = recipe_key(
        None, "corpus, candidate_lists: file of document ids for training, one per line"
    )
    dev_documents: str | None = recipe_key(
        None, "corpus, candidate_lists: document ids to split into dev, calibration and test"
    )
    test_documents: str | None = recipe_key(
        None,
        "corpus, candidate_lists: document ids of the test split; without it, the test split is a part of "
        "dev_documents",
    )
    expected_mentions: int | None = recipe_key(
        None,
        "corpus: number of mentions in the whole corpus; another number means an incomplete download",
        least=1,
    )
    on_error: str = recipe_key(
        "stop",
        "malformed lines and annotations: stop ends with file and place; skip counts them",
        ("stop", "skip"),
        rare=True,
    )
    train_share: float = recipe_key(
        0.6, "held_out_synonyms: share of the concepts for training; candidate_lists: of the documents"
    )
    dev_share: float = recipe_key(0.2, "share of the held-out documents for early stopping")
    calibration_share: float = recipe_key(0.4, "share of the held-out documents for calibrator and thresholds")
    train_calibration_share: float = recipe_key(
        0.0,
        "share of the documents of train_documents that calibrate instead: the certified share grows with calibration "
        "documents, and training needs fewer than a corpus has",
    )
    context_chars: int = recipe_key(128, "characters of text kept on each side of a mention", least=0, rare=True)
    expand_abbreviations: bool = recipe_key(
        False, "corpus: replace mentions that are abbreviations by the long form that their document defines"
    )
    feedback: str | None = recipe_key(
        None, "folder of reviewers' corrections (umls-reranker add_feedback), added to the training mentions"
    )


@dataclass
class EncoderArguments:
    """Encoder: how the bi-encoder is fine-tuned before it embeds the names; by default it is not."""

    encoder_training_steps: int = recipe_key(
        0, "optimizer steps; 0 uses the encoder without fine-tuning and without context", least=0
    )
    encoder_batch_size: int = recipe_key(
        192, "queries per step; each is a negative for the concepts of all others", least=1, rare=True
    )
    encoder_learning_rate: float = recipe_key(1e-4, "AdamW peak learning rate")
    encoder_dropout: float | None = recipe_key(
        None,
        "dropout of all its layers in training; 0 learns more from few passes over the mentions; empty: as the model "
        "says (BERT: 0.1)",
        least=0,
        most=1,
    )
    encoder_context_tokens: int = recipe_key(16, "tokens of text read on each side of a mention", least=0, rare=True)


@dataclass
class IndexArguments:
    """Index: a bi-encoder over all names, and the candidates it retrieves."""

    encoder: str = recipe_key("cambridgeltl/SapBERT-from-PubMedBERT-fulltext", "bi-encoder: Hub id or local folder")
    encoder_revision: str | None = recipe_key(
        None, "bi-encoder: revision on the Hub (commit, tag or branch)", rare=True
    )
    encoder_pooling: str = recipe_key(
        "cls", "pooling of token vectors: cls (SapBERT) or mean (MiniLM)", ("cls", "mean")
    )
    encoder_max_length: int = recipe_key(32, "tokens read of a name; longer names are cut", least=1)
    encoder_dtype: str = recipe_key("auto", "number format of the bi-encoder", DTYPES, rare=True)
    index_factory: str = recipe_key(
        "Flat",
        "FAISS factory string: Flat (exact), IVF16384,SQfp16, HNSW32,SQ8, PQ96 and so on; inexact indexes are "
        "compared with exact search; HNSW differs slightly from build to build, except with OMP_NUM_THREADS=1",
    )
    index_parameters: str | None = recipe_key(
        None,
        "FAISS search parameters: nprobe=128 (clusters to search; required for IVF) or efSearch=128 (HNSW)",
    )
    retrievers: list[str] = recipe_key(["dense"], "what finds the candidates; several are combined", RETRIEVERS)
    candidates_per_mention: int = recipe_key(32, "concepts retrieved per held-out mention", least=1)


@dataclass
class MiningArguments:
    """Pairs: negatives per positive, and their weights in the loss."""

    nearest_negatives: int = recipe_key(5, "nearest concepts other than the gold one", least=0)
    same_type_negatives: int = recipe_key(2, "random concepts that share the gold concept's semantic type", least=0)
    random_negatives: int = recipe_key(2, "random concepts", least=0)
    cosine_floor: float = recipe_key(
        0.85,
        "cosine that a nearest negative should reach; if there are too few, the nearest ones below it are used "
        "and counted",
        rare=True,
    )
    neighbors: int = recipe_key(
        64,
        "concepts searched per mention when mining; twice and four times as many if the filters leave too few",
        least=1,
        rare=True,
    )
    positive_weight: float = recipe_key(1.0, "weight of a positive pair in the loss", least=0, rare=True)
    hard_negative_weight: float = recipe_key(1.5, "weight of a nearest negative", least=0, rare=True)
    feedback_weight: float = recipe_key(
        1.0, "multiplier for these weights, for pairs of corrections (`feedback`)", least=0, rare=True
    )
    max_train_mentions: int | None = recipe_key(
        None,
        "maximum number of training mentions, drawn by the seed among those whose concept is in the dictionary",
        least=1,
    )


@dataclass
class ModelArguments:
    """Model: the cross-encoder's base and the text it reads."""

    model: str = recipe_key("cambridgeltl/SapBERT-from-PubMedBERT-fulltext", "base model: Hub id or local folder")
    model_revision: str | None = recipe_key(None, "base model: revision on the Hub", rare=True)
    start_from_encoder: bool = recipe_key(False, "start from the run's own trained encoder instead of the base model")
    max_length: int = recipe_key(
        64, "maximum tokens of a pair, special tokens included; cut pairs are counted", least=1
    )
    context_tokens: int = recipe_key(0, "tokens of text shown on each side of the mention; 0: no context", least=0)
    mention_types: bool = recipe_key(
        False, "show the names of the mention's semantic types after it, if they are known"
    )
    candidate_fields: list[str] = recipe_key(
        [],
        "shown of a candidate in addition to its best-matching name: preferred_name (distinguishes concepts with "
        "the same name), definition (its first 160 characters)",
        ("preferred_name", "definition"),
    )


@dataclass
class CalibrationArguments:
    """Calibration: from logits to probabilities, thresholds and tiers."""

    features: list[str] | None = recipe_key(
        None,
        "features of the fusion, where a higher value never lowers a probability; with candidate_lists also NAME of "
        "each NAME_score; not given: all, with the scores in the lists; []: the cross-encoder alone, without fusion",
        FEATURES,
        is_open=True,
    )
    calibrator: str = recipe_key(
        "auto",
        "increasing map of log-odds to those of calibrated probabilities, with features inside a mention's list",
        ChainMap[str, Any]({"auto": AUTO}, CALIBRATORS),
    )
    target_precision: float = recipe_key(
        0.95, "certified precision of the high-confidence tier", least=0.01, most=0.999
    )
    confidence: float = recipe_key(0.95, "confidence of that certificate", least=0.01, most=0.999)
    exhaustive: bool = recipe_key(
        False,
        "have the cross-encoder score all candidates; else only those that can win, if on held-out documents this "
        "changes nothing but 0.5 % of the first candidates, 0.2 points of acc@1 and of the certified share",
        rare=True,
    )
    calibration_feedback: str | None = recipe_key(
        None,
        "folder of reviewers' corrections (umls-reranker add_feedback), added to the calibration split (or to "
        "--lists), except those that the model was trained on",
    )


@dataclass
class EvaluationArguments:
    """Evaluation: the report on the test split, and the targets it is checked against."""

    bootstrap_resamples: int = recipe_key(1000, "resamples of documents for the 95 % intervals", least=1, rare=True)
    targets: list[str] = recipe_key(
        [], 'figures that umls-reranker validate checks, e.g. "acc@1 >= 0.75"; a missed target fails the run'
    )
    margin: float = recipe_key(
        USUAL_MARGIN,
        "by how much acc@1 and F1 of a new version may be lower than the former's, and the Brier score of its top "
        "answers higher by half of this, and still pass (validate --against, publish)",
        least=0,
        most=1,
    )


@dataclass
class PublishArguments:
    """Publishing: the Hub repo."""

    repo_id: str | None = recipe_key(None, "Hub repo, e.g. org/sapbert-umls-reranker")
    tag: str | None = recipe_key(None, "tag of this version, e.g. v1.0.0; an existing tag is never overwritten")
    private: bool = recipe_key(
        True, "make a new repo private (the Hub's default is public), and refuse an existing public one"
    )
    force_worse: bool = recipe_key(
        False, "publish a version even if it is worse than the one in the repo, or not shown to be as good (`margin`)"
    )


@dataclass
class ServingArguments:
    """Serving: what a deployment loads, and its limits."""

    served_model: str | None = recipe_key(None, "reranker: Hub repo or local folder")
    served_revision: str | None = recipe_key(None, "tag, branch or commit of that repo; pin a tag in production")
    served_index: str | None = recipe_key(
        None, "folder made by umls-reranker export_index, or a run folder; empty: the service ranks but does not link"
    )
    accept_tier: str = recipe_key(
        "medium",
        "lowest tier that is accepted at rank 1; medium: the model's thresholds; high: only what its certificate "
        "covers",
        ("medium", "high"),
    )
    backend: str = recipe_key(
        "torch",
        "torch, or onnx: the network that umls-reranker export made, served without torch",
        tuple(BACKENDS),
    )
    token_budget: int | None = recipe_key(
        None, "tokens per forward pass, padding included; empty: 1024 on a CPU, 65536 on a GPU", least=1, rare=True
    )
    batch_mentions: int = recipe_key(64, "maximum mentions per batch", least=1, rare=True)
    host: str = recipe_key("127.0.0.1", "address to listen on")
    port: int = recipe_key(8080, "port to listen on; 0 chooses a free one", least=0, most=65_535)
    max_queue: int = recipe_key(
        512, "maximum mentions waiting or being ranked; further requests get status 429", least=1, rare=True
    )
    max_candidates: int = recipe_key(256, "maximum candidates (texts) per mention", least=1, rare=True)
    max_request_mentions: int = recipe_key(64, "maximum mentions per request", least=1, rare=True)
    auto_truncate: bool = recipe_key(
        True, "/rerank: cut texts that are too long if the request does not say; false refuses them", rare=True
    )


@dataclass
class MonitoringArguments:
    """Monitoring: the windows of the figures, and when an alarm is raised."""

    monitor_window: int = recipe_key(2000, "mentions per window that is compared with the model's test split")
    monitor_alpha: float = recipe_key(
        0.05,
        "about the probability that a monitor ever raises a false alarm, half of it for drift, half for the "
        "precision of the tier high; each process, and each start of one, spends it anew",
        least=1e-6,
        most=0.5,
    )
    monitor_log: str | None = recipe_key(
        None, "file to append finished windows and alarms to, as JSON lines; empty: none"
    )
