"""Studies of sheets: which documents are drawn, and the file that says so beside the sheet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.looks import expected_coverage
from ..calibration.study import STUDY_ENDING, Study
from ..core.errors import UserError

# The ending of lists beside a sheet, without that of the file.
LISTS_ENDING = ".lists"
MENTIONS_ENDING = ".mentions"
# The least share of terms in the tier that is believed: scores of a model that was fitted on other
# lists are often too low, and looks at thousands of documents would never come.
LEAST_COVERAGE = 0.5


@dataclass(frozen=True)
class Sample:
    """Some of the documents of a pool, in a drawn order.

    Attributes:
        first: number of the first in this order, from 1.
        last: number of the last.
        seed: seed of the order.
    """

    first: int
    last: int
    seed: int

    @classmethod
    def parse(cls, text: str, seed: int) -> Sample:
        """Read ``200`` or ``201-400``; `ValueError` if it is neither."""
        first, mark, last = text.partition("-")
        sample = cls(1, int(first), seed)
        if mark:
            sample = cls(int(first), int(last), seed)
        if not 1 <= sample.first <= sample.last:
            raise ValueError(text)
        return sample

    def named(self, output: Path) -> Path:
        """The output's path, with the sample in its name."""
        words = f"sample_{self.first}-{self.last}_seed_{self.seed}"
        return output.with_name(f"{output.stem}.{words}{output.suffix}")

    def of(self, order: Sequence[Any]) -> Sequence[Any]:
        """The documents of the sample.

        Raises:
            UserError: there are none.
        """
        if self.first > len(order):
            raise UserError(
                f"--sample {self.first}-{self.last}: there are {len(order):,} documents to draw"
            )
        return order[self.first - 1 : self.last]


@dataclass(frozen=True)
class StudySettings:
    """What a study is for.

    Attributes:
        target_precision: precision to certify.
        confidence: that of all looks together.
        looks: number of documents of one look; None: a plan of four.
    """

    target_precision: float = 0.95
    confidence: float = 0.95
    looks: int | None = None

    def draw(
        self, documents: Sequence[Hashable], seed: int, tier_coverage: float = 1.0
    ) -> tuple[Study, list[Any]]:
        """Draw an order, as `Study.draw`."""
        return Study.draw(
            documents,
            self.target_precision,
            self.confidence,
            seed=seed,
            looks=self.looks,
            tier_coverage=tier_coverage,
        )


def study_path(sheet: Path) -> Path:
    """The file of the study beside a sheet, or beside the lists of one."""
    stem = sheet.stem.removesuffix(LISTS_ENDING).removesuffix(MENTIONS_ENDING)
    return sheet.with_name(stem + STUDY_ENDING)


def study_beside(files: Iterable[Path | None]) -> tuple[Path | None, Study | None]:
    """The study beside any of some files, and its path; None without one.

    Raises:
        UserError: a study is damaged, or there are two; names them.
    """
    paths = dict.fromkeys(study_path(file) for file in files if file is not None)
    found_path: Path | None = None
    found: Study | None = None
    for path in paths:
        if not path.is_file():
            continue
        study = Study.load(path)
        if found is None:
            found_path = path
            found = study
        elif found.id == study.id:
            found = found.joined(study)
        else:
            raise UserError(
                f"{found_path} and {path} are two studies; calibrate on the sheets of one, or move "
                "the file of the earlier one away and give --new_study"
            )
    return found_path, found


def expected_tier_coverage(scores: np.ndarray, target: float) -> float:
    """The share of terms in the tier that is planned for, by scores (n,) of a model before labels.

    Scores are NaN for terms without a candidate.
    """
    return max(expected_coverage(scores, target), LEAST_COVERAGE)


def write_study(
    study: Study, sheet: Path, system: Mapping[str, Any], tier_coverage: float = 1.0
) -> str:
    """Write the study of a sheet beside it, and say when it looks.

    Args:
        study: the study.
        sheet: the sheet.
        system: what decides, as far as it is known.
        tier_coverage: the share of documents in the tier that was planned for.

    Returns:
        A line about it.
    """
    path = study_path(sheet)
    study = replace(study, system=system)
    if path.is_file():
        former = Study.load(path)
        # What was spent stays so when a sheet is written again.
        if former.id == study.id:
            study = former.joined(study)
    study.save(path)
    numbers = [f"{look.documents:,}" for look in study.looks]
    if not numbers:
        return (
            f"the study, {path}, has no look: the first of four would take more documents than "
            "there are to draw from; --looks N looks once, at N, and takes fewer"
        )
    ends = " and ".join(filter(None, (", ".join(numbers[1:-1]), numbers[-1])))
    further = f", then at {ends}" if len(numbers) > 1 else ""
    expected = (
        f", of which {tier_coverage:.0%} are expected in the tier" if tier_coverage < 1 else ""
    )
    return (
        f"look 1 of {len(numbers)} at {numbers[0]} documents{further}{expected}; label from the "
        f"top of the sheet and leave none out; nothing is tested before a look. The study: {path}"
    )
