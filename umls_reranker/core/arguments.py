"""Recipe sections: one dataclass per stage. `umls_reranker.core.recipe` reads them from YAML and the command line.

That of training is in `trainer_fields`.

Keys are unique over all sections, so a recipe is one flat YAML file. A default that differs from the library's
own says so in its help.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "CalibrationArguments",
    "ConceptArguments",
    "EncoderArguments",
    "EvaluationArguments",
    "IndexArguments",
    "MentionArguments",
    "MiningArguments",
    "ModelArguments",
    "MonitoringArguments",
    "PublishArguments",
    "RunArguments",
    "ServingArguments",
    "recipe_key",
]

# Exported backend -> its files in a model folder, where Optimum and sentence-transformers look for them.
EXPORTED_FILES = {
    "onnx": ("onnx/model.onnx",),
    "onnx_int8": ("onnx/model_qint8_avx512_vnni.onnx",),
    "openvino": ("openvino/openvino_model.xml", "openvino/openvino_model.bin"),
    "openvino_int8": (
        "openvino/openvino_model_qint8_quantized.xml",
        "openvino/openvino_model_qint8_quantized.bin",
    ),
}
BACKENDS = ("torch", "torch_compile", *EXPORTED_FILES)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def recipe_key(default: object, help: str, choices: tuple[str, ...] | None = None, group: str | None = None) -> Any:
    """A field of a section: what ``--help`` says of it, its choices, and its heading there (None: the section's)."""
    # Any, as dataclasses.field has it: the value has the type of its annotation.
    metadata = {"help": help, "choices": choices, "group": group}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunArguments:
    """Where the run lives and what holds for all stages."""

    run_name: str = recipe_key("run", "name of the run; everything is written to OUTPUT_DIR/RUN_NAME")
    output_dir: str = recipe_key("runs", "folder that holds the runs")
    cache_dir: str = recipe_key(".cache", "folder for files fetched from a URL")
    seed: int = recipe_key(13, "seed of splits, mining, initial weights and data order")
    device: str = recipe_key("auto", "cpu, cuda, cuda:1, mps; auto takes a GPU when there is one")
    scoring_precision: str = recipe_key(
        "auto",
        "precision in which the reranker scores, and hence is calibrated; auto is bfloat16 where the processor or "
        "GPU computes in it, else float32",
        PRECISIONS,
    )
    stage_minutes: dict | None = recipe_key(
        None,
        "command -> minutes it took where the recipe was recorded; umls-reranker run estimates from them what is left",
    )
    overwrite: bool = recipe_key(False, "make the stage anew, from its beginning, even when it is up to date")
    dry_run: bool = recipe_key(False, "say what would be made, and check the inputs, without making it")

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.run_name


@dataclass
class ConceptArguments:
    """Concepts: where CUIs, names and types come from."""

    concept_source: str = recipe_key(
        "rrf", "rrf: a UMLS release; obo: an ontology with UMLS cross references", ("rrf", "obo")
    )
    umls_dir: str | None = recipe_key(
        None,
        "rrf: folder with MRCONSO.RRF, MRSTY.RRF and, when there, MRDEF.RRF, MRREL.RRF, MRCUI.RRF and MRSAB.RRF; each "
        "may be .gz, or in the parts .aa.gz, .ab.gz and so on",
    )
    semantic_network_dir: str | None = recipe_key(
        None,
        "rrf: folder with SRDEF (the release's NET folder) and, when there, SemGroups.txt; empty: the types and "
        "groups built in",
    )
    languages: list[str] = recipe_key(["ENG"], "rrf: languages (LAT) whose names are kept")
    sources: list[str] = recipe_key([], "rrf: source vocabularies (SAB) whose names are kept; empty keeps all")
    keep_suppressed: bool = recipe_key(False, "rrf: keep names whose SUPPRESS flag is not N")
    term_types: list[str] = recipe_key([], "rrf: term types (TTY, e.g. PT, SY) whose names are kept; empty keeps all")
    concept_types: list[str] = recipe_key([], "keep only concepts of these semantic types (ids); empty keeps all")
    semantic_groups: list[str] = recipe_key(
        [], "rrf: keep concepts of these semantic groups too (e.g. DISO); empty, as concept_types, keeps all"
    )
    definition_sources: list[str] = recipe_key(
        [], "rrf: source vocabularies (SAB) whose definition is preferred, best first; empty goes by order of file"
    )
    relations: list[str] = recipe_key(
        ["PAR", "CHD", "RB", "RN", "SY"],
        "rrf: relations of MRREL that are kept, where the file is there; empty leaves it unread",
        ("SY", "PAR", "CHD", "RB", "RN", "SIB"),
    )
    obo: str | list[str] | None = recipe_key(
        None,
        "obo: local path, URL, or package:NAME/FILE of an ontology (OBO or OBO Graphs JSON, plain or .gz); or a list "
        "of them, the one whose names are preferred first",
    )
    obo_type_roots: list[str] = recipe_key([], "obo: terms whose children serve as semantic types")
    obo_synonym_scopes: list[str] = recipe_key(["EXACT"], "obo: synonym scopes kept (EXACT, NARROW, BROAD, RELATED)")

    @property
    def names_dictionary(self) -> bool:
        """Whether there is one, which candidate lists can do without."""
        return self.concept_source == "obo" or self.umls_dir is not None


@dataclass
class MentionArguments:
    """Mentions: annotated text, and its four splits by document."""

    mention_source: str = recipe_key(
        "pubtator",
        "pubtator: an annotated corpus; held_out_synonyms: names taken out of the concepts",
        ("pubtator", "held_out_synonyms"),
    )
    candidate_lists: str | None = recipe_key(
        None,
        "in place of corpus, index and retrieval: file or folder of mentions with candidates of your own pipeline "
        "(.jsonl, .parquet, .arrow), as umls-reranker rerank reads them, candidates best first, each mention with "
        "doc_id, cui (the right concept) and, unless train_documents or the shares say it, split (train, dev, "
        "calibration, test); scores of candidates are called NAME_score; a dictionary (umls_dir, obo) is optional",
    )
    corpus: str | None = recipe_key(
        None, "pubtator: local path or URL of the corpus, plain or .gz; #sha256=HEX at its end checks the file"
    )
    train_documents: str | None = recipe_key(
        None, "pubtator, candidate_lists: file of document ids, one a line, used for training"
    )
    dev_documents: str | None = recipe_key(
        None, "pubtator, candidate_lists: document ids shared out to dev, calibration and test"
    )
    test_documents: str | None = recipe_key(
        None,
        "pubtator, candidate_lists: document ids of the test split; without it the test split is a part of "
        "dev_documents",
    )
    map_retired_cuis: bool = recipe_key(
        True,
        "pubtator: where the dictionary lacks an annotated CUI that MRCUI.RRF says was merged, take the CUI it was "
        "merged into",
    )
    expected_mentions: int | None = recipe_key(
        None, "pubtator: number of annotations the whole corpus must have, as a check that the download is complete"
    )
    on_error: str = recipe_key("stop", "malformed lines: stop names file and line; skip counts them", ("stop", "skip"))
    train_share: float = recipe_key(
        0.6, "held_out_synonyms: share of the concepts for training; candidate_lists: of the documents"
    )
    dev_share: float = recipe_key(0.2, "share of the held-out documents for early stopping")
    calibration_share: float = recipe_key(0.4, "share of the held-out documents for calibrator and thresholds")
    context_chars: int = recipe_key(128, "characters of text kept on each side of a mention")
    expand_abbreviations: bool = recipe_key(
        False, "pubtator: where a document defines a mention as an abbreviation, take the text of its long form"
    )
    feedback: str | None = recipe_key(
        None, "folder of a reviewer's corrections (umls-reranker add_feedback), which join the training mentions"
    )


@dataclass
class EncoderArguments:
    """Encoder: how the bi-encoder is fine-tuned before it embeds the names; by default it is taken as it is."""

    encoder_training_steps: int = recipe_key(0, "optimizer steps; 0 takes the encoder as it is, without context")
    encoder_batch_size: int = recipe_key(192, "queries per step, each a negative for all others' concepts")
    encoder_learning_rate: float = recipe_key(1e-4, "AdamW peak learning rate")
    encoder_context_tokens: int = recipe_key(16, "tokens of text that the encoder reads on each side of a mention")
    encoder_save_steps: int = recipe_key(100, "optimizer steps between checkpoints, from which a killed run resumes")


@dataclass
class IndexArguments:
    """Index: a bi-encoder over all names, and the candidates it retrieves."""

    encoder: str = recipe_key("cambridgeltl/SapBERT-from-PubMedBERT-fulltext", "bi-encoder: Hub id or local folder")
    encoder_revision: str | None = recipe_key(None, "bi-encoder: revision on the Hub (commit, tag or branch)")
    encoder_pooling: str = recipe_key(
        "cls", "how token vectors become one: cls (SapBERT) or mean (MiniLM)", ("cls", "mean")
    )
    encoder_max_length: int = recipe_key(32, "tokens of a name that are read; longer names are cut")
    encoder_precision: str = recipe_key("auto", "precision of the bi-encoder", PRECISIONS)
    index_factory: str = recipe_key(
        "Flat",
        "FAISS factory string: Flat (exact), IVF16384,SQfp16, HNSW32,SQ8, PQ96 and so on; what is not exact is "
        "compared with exact search; threads build HNSW a little differently each time, except with OMP_NUM_THREADS=1",
    )
    index_parameters: str | None = recipe_key(
        None,
        "FAISS search parameters of the index: nprobe=128 (clusters searched; IVF needs it) or efSearch=128 (HNSW)",
    )
    index_training_sample: int | None = recipe_key(
        None,
        "names that a clustering or quantizing index is trained on, at most; IVF needs 39 a cluster; empty: 64 a "
        "cluster, 262,144 at least",
    )
    retrievers: list[str] = recipe_key(
        ["dense"],
        "dense: nearest vectors of the mention; context: of the mention in its text, by an encoder trained for it; "
        "lexical: names most similar by letter trigrams; nearest_mentions: concepts of the most similar training "
        "mentions; of several, their union",
        ("dense", "context", "lexical", "nearest_mentions"),
    )
    candidates_per_mention: int = recipe_key(32, "concepts retrieved per held-out mention")


@dataclass
class MiningArguments:
    """Pairs: negatives per positive, and their weights in the loss."""

    semantic_negatives: int = recipe_key(5, "nearest concepts that are not the gold one")
    same_type_negatives: int = recipe_key(2, "random concepts of the gold concept's semantic type")
    random_negatives: int = recipe_key(2, "random concepts")
    cosine_floor: float = recipe_key(
        0.85, "cosine a semantic negative should reach; nearest ones below it fill up, counted"
    )
    neighbors: int = recipe_key(
        64, "concepts searched per mention when mining; twice and four times as many where guards leave too few"
    )
    guard_relations: list[str] = recipe_key(
        ["PAR", "CHD", "RB", "RN", "SY"],
        "no negative has one of these relations (MRREL) to the gold concept; empty: related concepts may be negatives",
        ("SY", "PAR", "CHD", "RB", "RN", "SIB"),
    )
    positive_aware_ceiling: float | None = recipe_key(
        None,
        "a semantic negative's cosine is at most this share of the positive's, e.g. 0.95; empty: no limit, since it "
        "takes out homonyms and what the retriever ranks above the gold concept, which serving will see",
    )
    mine_per: str = recipe_key(
        "mention",
        "string: train only on the first mention of each normalized string and gold concept, which loses the "
        "context of the others",
        ("mention", "string"),
    )
    positive_weight: float = recipe_key(1.0, "weight of a positive pair in the loss")
    hard_negative_weight: float = recipe_key(1.5, "weight of a semantic negative")
    other_negative_weight: float = recipe_key(1.0, "weight of a same-type or random negative")
    typeless_share: float = recipe_key(
        0.2,
        "with mention_types: share of the training mentions shown without their types, so that types may be missing",
    )
    feedback_weight: float = recipe_key(1.0, "factor to these weights for pairs of corrections (`feedback`)")
    max_train_mentions: int | None = recipe_key(
        None, "train on at most this many mentions, drawn by the seed among those whose concept is in the dictionary"
    )


@dataclass
class ModelArguments:
    """Model: the cross-encoder's base and the text it reads."""

    model: str = recipe_key("cambridgeltl/SapBERT-from-PubMedBERT-fulltext", "base model: Hub id or local folder")
    model_revision: str | None = recipe_key(None, "base model: revision on the Hub")
    start_from_encoder: bool = recipe_key(False, "start from the run's own trained encoder in place of the base model")
    max_length: int = recipe_key(64, "tokens of a pair, special tokens included; what is cut is counted")
    context_tokens: int = recipe_key(0, "tokens of text shown on each side of the mention; 0 leaves the context out")
    mention_types: bool = recipe_key(
        False, "show the names of the mention's semantic types behind it, where they are known"
    )
    candidate_fields: list[str] = recipe_key(
        [],
        "shown of a candidate besides its best-matching name: preferred_name (tells apart concepts with one name), "
        "definition (its first 160 characters)",
        ("preferred_name", "definition"),
    )


@dataclass
class CalibrationArguments:
    """Calibration: from logits to probabilities, thresholds and tiers."""

    features: list[str] | None = recipe_key(
        None,
        "what the probability of a candidate is made of: cross_encoder, retrieval, context, lexical (scores of the "
        "retrievers; with candidate_lists the names of your own), exact_name, qualifier_fit (no left for right, no "
        "type 1 for 2), string_share, concept_count (training mentions), type_lift (training mentions with the "
        "mention's semantic type), type_fit (the dictionary's types do not contradict the mention's); not given: all "
        "of these, with the scores that the lists carry; []: the cross-encoder alone, without fusion",
    )
    calibrator: str = recipe_key(
        "auto",
        "platt, temperature, beta, or with a line by semantic type hierarchical_beta; with features they work inside "
        "a mention's list, where listwise leaves the fusion as it is; isotonic, without features; auto picks by "
        "cross-validated log-loss, documents kept together",
        ("platt", "temperature", "beta", "hierarchical_beta", "listwise", "isotonic", "auto"),
    )
    target_precision: float = recipe_key(0.95, "precision that the high-confidence tier is certified for")
    confidence: float = recipe_key(0.95, "confidence of that certificate")
    calibration_feedback: str | None = recipe_key(
        None,
        "folder of a reviewer's corrections (umls-reranker add_feedback), which join the calibration split, but for "
        "those that the model was trained on",
    )


@dataclass
class EvaluationArguments:
    """Evaluation: the report on the test split, and the targets it is checked against."""

    bootstrap_resamples: int = recipe_key(1000, "resamples of documents for the 95 % intervals")
    example_mentions: int = recipe_key(5, "mentions shown with their reranked candidates at the end of a run")
    targets: list[str] = recipe_key(
        [], 'what umls-reranker validate asks for, e.g. "acc@1 >= 0.75"; a missed one fails the run'
    )


@dataclass
class PublishArguments:
    """Publishing: the Hub repo."""

    repo_id: str | None = recipe_key(None, "Hub repo, e.g. org/sapbert-umls-reranker")
    tag: str | None = recipe_key(None, "tag of this version, e.g. v1.0.0; an existing tag is never overwritten")
    private: bool = recipe_key(
        True, "make a new repo private (the Hub's default is public), and refuse an existing public one"
    )
    commit_message: str | None = recipe_key(None, "message of the commit")
    force_worse: bool = recipe_key(False, "publish a version even when it is worse than what the repo holds")


@dataclass
class ServingArguments:
    """Serving: what a deployment loads, and the limits within which it answers."""

    served_model: str | None = recipe_key(None, "reranker: Hub repo or local folder")
    served_revision: str | None = recipe_key(None, "tag, branch or commit of that repo; pin a tag in production")
    served_index: str | None = recipe_key(
        None, "folder of umls-reranker export_index, or a run folder; empty: nothing is linked, only ranked"
    )
    accept_tier: str = recipe_key(
        "medium",
        "lowest tier whose first candidate is accepted; medium: as the model says; high: only what its certificate "
        "covers",
        ("medium", "high"),
    )
    backend: str = recipe_key(
        "torch",
        f"torch, torch_compile, or a network that umls-reranker export made: {', '.join(EXPORTED_FILES)}",
        BACKENDS,
    )
    token_budget: int | None = recipe_key(
        None, "tokens of one forward pass, padding included; empty: 1024 on a processor, 65536 on a GPU"
    )
    batch_deadline_ms: float = recipe_key(2.0, "milliseconds that a mention waits for others to share its batch")
    batch_mentions: int = recipe_key(64, "most mentions of a batch")
    host: str = recipe_key("127.0.0.1", "address that is listened at")
    port: int = recipe_key(8080, "port that is listened at; 0 takes a free one")
    max_queue: int = recipe_key(
        512, "mentions that wait or are ranked, at most; requests beyond are answered with 429"
    )
    max_candidates: int = recipe_key(256, "candidates (texts) of one mention, at most")
    max_request_mentions: int = recipe_key(64, "mentions of one request, at most")
    max_body_bytes: int = recipe_key(2_000_000, "bytes of a request, at most")
    read_seconds: float = recipe_key(
        30.0, "seconds within which the headers of a request arrive, and within which its body"
    )
    auto_truncate: bool = recipe_key(
        True, "/rerank: cut texts that are too long where a request does not say; false refuses them"
    )
    stop_seconds: int = recipe_key(30, "seconds that requests in flight are given to end when the service is stopped")


@dataclass
class MonitoringArguments:
    """Monitoring: over what the figures slide, and when an alarm is raised."""

    monitor_window: int = recipe_key(2000, "mentions of a sliding window, each compared with the model's test split")
    monitor_alpha: float = recipe_key(
        0.05, "probability that a monitor ever raises an alarm although nothing has moved, over all its windows"
    )
    monitor_log: str | None = recipe_key(
        None, "file to which finished windows and alarms are appended as JSON lines; empty: none is written"
    )
