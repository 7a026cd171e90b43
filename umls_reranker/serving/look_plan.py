"""Which look at labelled lists is due, what it may fit on, and what is said about it.

A study is a fixed order of documents, and looks at the first so many of them.
`due_look.plan_look` finds the study that the labelled documents belong to (`FormerStudies`), and
`LookPlanner` says for this study which look is due.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..calibration.certificate import Certificate
from ..calibration.study import LookResult, Study
from .look_words import name_of_look, percent_of, summary_of_test, when_next


@dataclass(frozen=True)
class LookOptions:
    """What a user says about looks.

    Attributes:
        written: the study of a file beside the sheets; None without one.
        may_look: whether a look that is due is taken.
        is_new_study: whether documents of former studies only train, and new ones are a study of
            their own.
    """

    written: Study | None = None
    may_look: bool = True
    is_new_study: bool = False


@dataclass(frozen=True)
class LookPlan:
    """What a calibration on n labelled mentions tests.

    Attributes:
        study: the study that the documents belong to; None without one.
        number: the look that is taken, from 0; None: nothing is tested.
        is_fitted: (n,) bool, the mentions to fit on.
        trains_only: hashes of documents that do not certify.
        content: hash of what is fitted at a look; "" without one.
        is_continued: whether documents may have been labelled for the study before.
        line: what is said before anything is scored.
    """

    study: Study | None
    number: int | None
    is_fitted: np.ndarray
    trains_only: frozenset[str] = frozenset()
    content: str = ""
    is_continued: bool = False
    line: str = ""

    @property
    def share(self) -> float:
        """The share of the error probability that is used; 0: nothing is tested."""
        if self.study is None or self.number is None:
            return 0.0
        return self.study.test(self.number).share

    def looked(self, certificate: Certificate | None) -> tuple[Study | None, str]:
        """The study after the look, and what came of it in words; "" if nothing was tested."""
        if self.study is None or self.number is None:
            return self.study, ""
        if certificate is not None and not certificate.is_tested:
            return self.study, "nothing was tested, nothing spent"
        is_certified = certificate is not None and certificate.threshold is not None
        summary = summary_of_test(certificate)
        study = self.study.with_result(self.number, LookResult(is_certified, self.content, summary))
        named = (
            f"{name_of_look(study, self.number)}, at {percent_of(study.test(self.number).level)}"
        )
        return study, f"{named}: {summary}; spent{when_next(study, self.number)}"
