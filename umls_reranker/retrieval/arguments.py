"""Recipe keys of this layer: the bi-encoder, indexes and retrievers, and pairs mined from lists."""

from dataclasses import dataclass

from ..core.keys import DTYPES, recipe_key
from ..models.arguments import BUILT_IN

ENCODER_FOLDER = "encoder"
# FAISS factory string of the exact index, which stores the vectors unchanged.
EXACT_INDEX = "Flat"


@dataclass
class EncoderArguments:
    """Encoder: fine-tuning of the bi-encoder before it embeds the names; by default none."""

    encoder_training_steps: int = recipe_key(
        0, "optimizer steps; 0 uses the encoder without fine-tuning and without context", least=0
    )
    encoder_learning_rate: float = recipe_key(1e-4, "AdamW peak learning rate", least=0)
    encoder_dropout: float | None = recipe_key(
        None,
        "dropout in training; 0 works better with few passes over the mentions; "
        "empty: the model's default (BERT: 0.1)",
        least=0,
        most=1,
    )


@dataclass
class IndexArguments:
    """Index: a bi-encoder over all names, and the candidates it retrieves."""

    encoder: str = recipe_key(
        "cambridgeltl/SapBERT-from-PubMedBERT-fulltext", "bi-encoder: Hub id or local folder"
    )
    encoder_revision: str | None = recipe_key(
        None, "bi-encoder: revision on the Hub (commit, tag or branch)"
    )
    encoder_pooling: str = recipe_key(
        "cls",
        "pooling of token vectors: cls (SapBERT) or mean (MiniLM, and always built-in)",
        ("cls", "mean"),
    )
    encoder_max_length: int = recipe_key(
        32, "maximum tokens per name; longer names are truncated", least=1
    )
    encoder_dtype: str = recipe_key(
        "auto", "dtype of the bi-encoder; auto as for scoring_dtype", DTYPES
    )
    index_factory: str = recipe_key(
        "Flat",
        "FAISS factory string: Flat (exact), IVF16384,SQfp16, HNSW32,SQ8, PQ96 and so on; "
        "HNSW builds are reproducible only with OMP_NUM_THREADS=1",
    )
    index_parameters: str | None = recipe_key(
        None,
        "FAISS search parameters: nprobe=128 (clusters to search; required for IVF) "
        "or efSearch=128 (HNSW)",
    )
    retrievers: list[str] = recipe_key(
        ["dense"], "retrievers of the candidates; several are combined"
    )
    candidates_per_mention: int = recipe_key(
        32, "candidates retrieved per held-out mention", least=1
    )

    def __post_init__(self) -> None:
        if self.encoder == BUILT_IN:
            self.encoder_pooling = "mean"


@dataclass
class MiningArguments:
    """Pairs: negatives per positive, and their weights in the loss."""

    nearest_negatives: int = recipe_key(5, "nearest-neighbor negatives per mention", least=0)
    min_nearest_cosine: float | None = recipe_key(
        None,
        "least cosine of a nearest-neighbor negative and its mention in the index of the retriever "
        "dense, whichever retriever found it; unset: any",
        least=-1,
        most=1,
    )
    same_type_negatives: int = recipe_key(
        2, "random negatives per mention that share a semantic type with the gold concept", least=0
    )
    random_negatives: int = recipe_key(2, "random concepts", least=0)
    positive_weight: float = recipe_key(1.0, "weight of a positive pair in the loss", least=0)
    hard_negative_weight: float = recipe_key(1.5, "weight of a nearest-neighbor negative", least=0)
    max_train_mentions: int | None = recipe_key(
        None,
        "maximum number of training mentions, sampled with the seed "
        "from those whose concept is in the dictionary",
        least=1,
    )
    teacher: list[str] = recipe_key(
        [],
        "models of one logit (local folders or Hub ids) whose mean the loss listwise_kl learns",
    )
