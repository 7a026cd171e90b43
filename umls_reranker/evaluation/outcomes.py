"""The answers of a model for the mentions of a split: one row per mention, without text.

Two versions are compared by these rows. They may be published with the model: they hold document ids, offsets, CUIs
and type ids, but no names of a vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..calibration.decisions import Decisions
from ..calibration.resampling import document_index, document_sums, ratio
from ..calibration.thresholds import TIERS
from ..core.errors import UserError
from ..core.files import require_format, written
from ..data.candidate_lists import AnnotatedLists
from .linking import gold_ranks, measure

__all__ = ["OUTCOMES_FILE", "Outcomes", "answering_metrics", "right_answer_sums", "sums_to_f1"]

OUTCOMES_FILE = "outcomes.parquet"
SCHEMA_VERSION = 1
SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("types", pa.list_(pa.string())),
        ("gold", pa.string()),
        ("in_dictionary", pa.bool_()),
        ("answer", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("margin", pa.float64()),
        ("tier", pa.string()),
        ("accepted", pa.bool_()),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)


@dataclass(frozen=True)
class Outcomes:
    """Columns over n mentions.

    Attributes:
        document: (n,) ids. start, end: (n,) offsets of the mention in it.
        types: semantic type ids of each mention.
        gold: (n,) CUIs. in_dictionary: (n,) bool, whether the dictionary has them.
        answer: (n,) CUI ranked first, "" without candidates.
        rank: (n,) rank of the gold concept, 0 is best, -1 if it is not in the list.
        score: (n,) calibrated probability of the answer, NaN without candidates.
        margin: (n,) score minus the best score of any other concept.
        tier: (n,) of the answer, "reject" without candidates.
        accepted: (n,) bool, whether the answer is given.
    """

    document: np.ndarray
    start: np.ndarray
    end: np.ndarray
    types: Sequence[Sequence[str]]
    gold: np.ndarray
    in_dictionary: np.ndarray
    answer: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    margin: np.ndarray
    tier: np.ndarray
    accepted: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, lists: AnnotatedLists, decisions: Decisions) -> Outcomes:
        """The decision about the first candidate of each mention."""
        first, annotations = decisions.top, lists.annotations
        has_any = first >= 0

        def top(column: np.ndarray, otherwise: Any) -> np.ndarray:
            result = np.full(len(first), otherwise, column.dtype)
            result[has_any] = column[first[has_any]]
            return result

        return cls(
            document=annotations.documents,
            start=annotations.starts,
            end=annotations.ends,
            types=list(lists.types),
            gold=annotations.cuis,
            in_dictionary=annotations.in_dictionary,
            answer=top(np.array([cui or "" for cui in lists.cuis.texts], object)[lists.cuis.codes], ""),
            rank=gold_ranks(decisions.log_odds, lists.offsets, annotations.gold),
            score=top(decisions.probabilities, np.nan),
            margin=top(decisions.margins, np.nan),
            tier=np.array(TIERS)[top(decisions.tiers, TIERS.index("reject"))],
            accepted=top(decisions.accepted, False),
        )

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool, whether the gold concept is ranked first."""
        return self.rank == 0

    @property
    def scored(self) -> np.ndarray:
        """(n,) bool, whether there was any candidate."""
        return ~np.isnan(self.score)

    def select(self, rows: np.ndarray) -> Outcomes:
        """The mentions at `rows`: indices, or (n,) bool."""
        rows = np.arange(len(self))[rows]
        columns: dict[str, Any] = {name: column[rows] for name, column in vars(self).items() if name != "types"}
        return Outcomes(types=[self.types[row] for row in rows.tolist()], **columns)

    def save(self, path: Path) -> None:
        """Write a Parquet file atomically."""
        columns = [pa.array(getattr(self, field.name), field.type, from_pandas=True) for field in SCHEMA]
        with written(path) as partial:
            pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), partial, compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        try:
            table = pq.read_table(path)
            version = (table.schema.metadata or {}).get(b"schema_version")
            require_format(path, {"schema_version": version and int(version)}, SCHEMA_VERSION, "evaluate")
            columns = {field.name: table[field.name].cast(field.type) for field in SCHEMA}
        except FileNotFoundError:
            raise UserError(f"{path} is missing; umls-reranker evaluate writes it") from None
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path} is damaged ({error}); run umls-reranker evaluate again") from None
        return cls(
            **{
                name: column.to_pylist() if name == "types" else column.to_numpy(zero_copy_only=False)
                for name, column in columns.items()
            }
        )


def answering_metrics(outcomes: Outcomes, *, resamples: int, seed: int) -> dict[str, dict]:
    """Answering or abstaining: does a mention get an answer if, and only if, the dictionary holds one?

    A mention whose gold concept the dictionary lacks has no right answer; the service should abstain. Three views,
    each ``{"precision", "recall", "f1"}`` of ``{"value", "low", "high"}`` and its counts:

    * ``answering``: answered mentions, right or wrong, against those that the dictionary can answer;
    * ``abstaining``: abstentions against mentions out of the dictionary (NIL detection);
    * ``right_answers``: right answers among those given, and among the mentions that have one: the end-to-end figure.

    A ratio without a denominator is NaN; intervals are 95 %, by document.
    """
    index, documents = document_index(outcomes.document)
    accepted, known = outcomes.accepted, outcomes.in_dictionary
    readings = {
        "answering": (accepted & known, accepted, known),
        "abstaining": (~accepted & ~known, ~accepted, ~known),
        "right_answers": right_answer_sums(outcomes),
    }
    report: dict[str, dict[str, Any]] = {}
    for name, columns in readings.items():
        sums = document_sums(index, documents, columns)
        report[name] = {
            "precision": measure(sums[:, [0, 1]], ratio, resamples=resamples, seed=seed),
            "recall": measure(sums[:, [0, 2]], ratio, resamples=resamples, seed=seed),
            "f1": measure(sums, sums_to_f1, resamples=resamples, seed=seed),
        }
        report[name] |= dict(zip(("hits", "given", "wanted"), map(int, sums.sum(axis=0)), strict=True))
    return report


def right_answer_sums(outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per mention (n,) bool: answered rightly, answered, answerable; F1 of their sums is that of ``right_answers``."""
    return outcomes.accepted & outcomes.correct, outcomes.accepted, outcomes.in_dictionary


def sums_to_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of (..., 3) hits, given and wanted."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])
