"""The answers of a model for the mentions of a split: one row per mention, in a Parquet file.

Two versions of a model are compared by these rows. Those of a run may be published with the model:
they hold ids of documents and mentions, offsets, CUIs and type ids, but no text and no names of a
vocabulary.
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
from ..calibration.thresholds import TIERS
from ..core.arrays import list_owner, ranking, values_at
from ..core.errors import UserError
from ..core.files import written
from ..core.json_files import require_format
from ..lists.annotated_lists import AnnotatedLists

OUTCOMES_FILE = "outcomes.parquet"
OUTCOMES_VERSION = 6
SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("mention_id", pa.string()),
        ("entity", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("types", pa.list_(pa.string())),
        ("gold", pa.string()),
        ("composite", pa.bool_()),
        ("in_dictionary", pa.bool_()),
        ("answer", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("margin", pa.float64()),
        ("tier", pa.string()),
        ("accepted", pa.bool_()),
        ("decided_by", pa.int32()),
    ],
    metadata={"schema_version": str(OUTCOMES_VERSION)},
)


def gold_ranks(scores: np.ndarray, offsets: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Rank (0 is the top) of the first correct candidate in each list sorted by score.

    Args:
        scores: (n_candidates,) raw logits, or any score for which higher is better.
        offsets: (n_mentions + 1,).
        correct: (n_candidates,) bool, whether each candidate is a correct answer.

    Returns:
        (n_mentions,) int64, -1 without a correct candidate.
    """
    ranks = np.full(len(offsets) - 1, -1, dtype=np.int64)
    # A ranking fills the places of each list, `offsets[i]` to `offsets[i + 1]`, from the top down.
    correct_places = np.flatnonzero(correct[ranking(scores, offsets)])
    # From the last place to the first, so that the best rank of a list is assigned last.
    from_last = correct_places[::-1]
    owner = list_owner(offsets)[from_last]
    ranks[owner] = from_last - offsets[owner]
    return ranks


@dataclass(frozen=True)
class Outcomes:
    """Columns over n mentions.

    Attributes:
        document: (n,) ids of the documents.
        mention_id: (n,) ids of the mentions in their documents, None without.
        entity: (n,) their texts, None in a file without text.
        start: (n,) offset of the mention in its document.
        end: (n,) offset of its end.
        types: semantic type ids of each mention.
        gold: (n,) gold concepts; several are joined by "|".
        composite: (n,) bool, whether the mention names several concepts.
        in_dictionary: (n,) bool, whether the dictionary has them.
        answer: (n,) id of the top candidate, "" without candidates.
        rank: (n,) rank of the first correct concept, 0 is the top, -1 if it is not in the list.
        score: (n,) calibrated probability of the answer, NaN without candidates.
        margin: (n,) score minus the highest score of any other concept.
        tier: (n,) tier of the answer, "reject" without candidates.
        accepted: (n,) bool, whether the answer is accepted.
        decided_by: (n,) index of the model that decided (`Decisions.models`); 0: of all inputs.
    """

    document: np.ndarray
    mention_id: np.ndarray
    entity: np.ndarray
    start: np.ndarray
    end: np.ndarray
    types: Sequence[Sequence[str]]
    gold: np.ndarray
    composite: np.ndarray
    in_dictionary: np.ndarray
    answer: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    margin: np.ndarray
    tier: np.ndarray
    accepted: np.ndarray
    decided_by: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, lists: AnnotatedLists, decisions: Decisions) -> Outcomes:
        """Make outcomes from the decision about the top candidate of each mention."""
        annotations = lists.annotations
        tops = decisions.tops
        ids = np.array(lists.ids, object)[lists.cuis.codes]
        return cls(
            document=annotations.documents,
            mention_id=annotations.mention_ids,
            entity=np.array(lists.mentions, object),
            start=annotations.starts,
            end=annotations.ends,
            types=list(lists.types),
            gold=annotations.cuis,
            composite=annotations.composite,
            in_dictionary=annotations.in_dictionary,
            answer=values_at(ids, tops.positions, ""),
            rank=gold_ranks(decisions.scores.log_odds, lists.offsets, lists.correct),
            score=tops.probabilities,
            margin=tops.margins,
            # The last tier, reject, is also that of mentions without candidates.
            tier=np.array(TIERS)[tops.tiers],
            accepted=tops.accepted,
            decided_by=tops.models,
        )

    @property
    def correct(self) -> np.ndarray:
        """Whether the top candidate is a correct concept, (n,) bool."""
        return self.rank == 0

    @property
    def has_candidates(self) -> np.ndarray:
        """Whether the mention has candidates, and so a score, (n,) bool."""
        return ~np.isnan(self.score)

    @property
    def every(self) -> np.ndarray:
        """All true, (n,) bool."""
        return np.ones(len(self), bool)

    @property
    def score_or_0(self) -> np.ndarray:
        """Score of the answer, 0 without candidates, (n,)."""
        return np.nan_to_num(self.score)

    def select(self, rows: np.ndarray) -> Outcomes:
        """The mentions at `rows`: indices, or (n,) bool."""
        rows = np.arange(len(self))[rows]
        columns: dict[str, Any] = {
            name: column[rows] for name, column in vars(self).items() if name != "types"
        }
        return Outcomes(types=[self.types[row] for row in rows.tolist()], **columns)

    def save(self, path: Path) -> None:
        """Write a Parquet file atomically."""
        columns = [
            pa.array(getattr(self, field.name), field.type, from_pandas=True) for field in SCHEMA
        ]
        with written(path) as partial:
            pq.write_table(
                pa.Table.from_arrays(columns, schema=SCHEMA), partial, compression="zstd"
            )

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        try:
            table = pq.read_table(path)
            version = (table.schema.metadata or {}).get(b"schema_version")
            require_format(
                path, {"schema_version": version and int(version)}, OUTCOMES_VERSION, "evaluate"
            )
            table = table.select(SCHEMA.names).cast(SCHEMA)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise UserError(
                f"{path} cannot be read ({error}); run umls-reranker evaluate again"
            ) from None
        columns: dict[str, Any] = {name: table[name].to_numpy() for name in SCHEMA.names}
        return cls(**columns | {"types": table["types"].to_pylist()})
