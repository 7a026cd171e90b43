"""`Monitor`: counts the results of a service and raises alarms."""

from __future__ import annotations

import json
import threading
import warnings
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ...calibration.inputs import ALL_INPUTS
from ...hub.model_folder import REFERENCE
from .figures import FiguresByType, Top
from .labels import LabelledAnswers, labelled_report, level_of_look
from .reference import NO_CANDIDATES, SMALLEST_PSI, Drift, Reference

if TYPE_CHECKING:
    from ..ranked_candidates import RankedCandidate

# Number of slices of a sliding window; the oldest is dropped when a new one begins.
SLICES = 20
LATEST_ALARMS = 100
# With fewer mentions, the last part of a log is not tested.
SMALLEST_WINDOW = 200
# Without a reference there is no stated guarantee; labels are then tested against the default one.
USUAL_PRECISION = 0.95


@dataclass(frozen=True)
class Alarm:
    """A finding that needs attention.

    Attributes:
        kind: ``scores`` or ``types`` (drift), or ``precision`` (of the high tier, by labels).
        mentions: number of mentions seen so far.
        sentence: what was found, against what, and what to do.
    """

    kind: str
    mentions: int
    sentence: str


class LogFile:
    """A log file for `Monitor`, opened for each write, so it may be moved, removed or full for a while.

    Args:
        path: the file; created at once, with its folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ending = ""
        self.write("")

    def write(self, text: str) -> None:
        """Append text."""
        # A failed write may leave a partial line, which must not swallow the next.
        text, self._ending = self._ending + text, "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(text)
        self._ending = ""

    def flush(self) -> None:
        """Do nothing: every write is complete."""


class Monitor:
    """Counts the results of a model, tests them for drift, and checks labelled answers.

    `Monitor.of_model` makes one with the reference of a model folder; every `UMLSReranker` has one as its ``monitor``.
    Memory is constant: sums and counts, no results. Safe to use from several threads.

    After every ``window`` mentions, their top scores and types are compared with those of the model's test split. An
    alarm means that a difference is both significant and large: the test rejects, and the population stability index
    is at least 0.1, since with enough traffic the smallest difference is significant. **If nothing has moved and the
    high tier keeps its guarantee, the probability that a monitor ever raises an alarm is about** ``alpha``, however
    long it runs. Drift and labels have half of it each. Of its half, look k may spend the part 1 / (k (k + 1)), and
    the two tests of a window share that. This sums to alpha by the union bound, under any dependence (all windows
    share one reference). Each monitor spends alpha anew: one in each process, from each start or `Monitor.reset`. Use
    a new monitor for each model version.

    Args:
        reference: figures of the model's test split; None: figures without drift.
        window: number of mentions of a window, a multiple of 20 from 200.
        alpha: probability of any false alarm, half of it for drift, half for the high tier's precision.
        log: receives every finished window and alarm as JSON lines. A failed write loses only its lines: the first
            failure warns, all are counted, and the next window tries again.
        model: version of the model, for the lines of the log.
    """

    def __init__(
        self,
        reference: Reference | None = None,
        *,
        window: int = 2_000,
        alpha: float = 0.05,
        log: TextIO | LogFile | None = None,
        model: str | None = None,
    ) -> None:
        if window < SMALLEST_WINDOW or window % SLICES:
            raise ValueError(f"window {window} must be a multiple of {SLICES} and {SMALLEST_WINDOW} or more")
        self.reference, self.window, self.alpha = reference, window, alpha
        self._log, self.model = log, model
        self._log_failures = 0
        self._lock = threading.Lock()
        self.reset()

    @classmethod
    def of_model(cls, folder: Path | None, **options: Any) -> Monitor:
        """Make a monitor with the reference of a model folder, if it has one.

        Args:
            folder: the model's folder; None: no reference.
            options: other arguments of `Monitor`.
        """
        path = None if folder is None else Path(folder) / REFERENCE
        return cls(Reference.load(path) if path and path.is_file() else None, **options)

    def reset(self) -> None:
        """Forget everything seen so far."""
        with self._lock:
            self._since = _now()
            # Sums of the complete slices.
            self._past = FiguresByType()
            self._truncated_pairs = 0
            self._inputs = Counter[str]()
            self._slices: deque[FiguresByType] = deque([FiguresByType()], maxlen=SLICES)
            target = self.reference.target_precision if self.reference else USUAL_PRECISION
            self._labels = LabelledAnswers(target, self.alpha / 2)
            self._alarms: deque[Alarm] = deque(maxlen=LATEST_ALARMS)
            self._alarm_count = 0
            self._windows = 0
            self._drift: dict[str, Drift] = {}
            self._moved: set[str] = set()
            self._start_window()

    def add(self, ranked: Sequence[RankedCandidate], types: Sequence[str] = ()) -> None:
        """Count one result of `UMLSReranker.rerank`.

        Args:
            ranked: the result.
            types: the mention's type ids.
        """
        best = ranked[0] if ranked else None
        top = None if best is None else Top(best.score, best.margin, best.tier, best.accepted)
        self.record(types, len(ranked), top, best.inputs if best else ALL_INPUTS)

    def record(
        self,
        types: Sequence[str],
        candidates: int,
        top: Top | None,
        inputs: str = ALL_INPUTS,
    ) -> None:
        """Count one mention.

        Args:
            types: semantic type ids of the mention. It counts in each, and with the first in the type distribution.
            candidates: number of its candidates.
            top: decision about the top candidate; None without candidates.
            inputs: which inputs decided (`RankedCandidate.inputs`); mentions of the reference have all of them.
        """
        with self._lock:
            current = self._slices[-1]
            if current.total.mentions >= self.window // SLICES:
                self._past.merge(current)
                current = FiguresByType()
                self._slices.append(current)
            current.add(types, candidates, top)
            if self.reference:
                self._scores[self.reference.score_cell(top and top.score)] += 1
                self._types[self.reference.type_cell(types)] += 1
            self._inputs[inputs] += 1
            self._lacking += inputs != ALL_INPUTS
            self._in_window += 1
            if self._in_window == self.window:
                self._end_window()

    def add_truncated(self, pairs: int) -> None:
        """Count pairs whose mention or name was cut to the model's length."""
        with self._lock:
            self._truncated_pairs += pairs

    def add_label(self, score: float, tier: str, correct: bool) -> None:
        """Add a reviewer's verdict on a top candidate; the reviewed answers must be a random sample.

        Args:
            score: the candidate's score.
            tier: the candidate's tier.
            correct: whether it is the gold concept.
        """
        with self._lock:
            sentence = self._labels.add(score, tier, correct)
            if sentence:
                self._write([self._raise("precision", sentence)])

    def finish(self) -> None:
        """At the end of a log, test the last incomplete window if it has at least 200 mentions."""
        with self._lock:
            if self._in_window >= SMALLEST_WINDOW:
                self._end_window()

    @property
    def alarms(self) -> list[Alarm]:
        """The latest 100 alarms, the oldest first."""
        with self._lock:
            return list(self._alarms)

    def totals(self) -> dict[str, Any]:
        """Figures since the start; ``inputs``: mentions by the inputs that decided; ``per_type``: figures by type."""
        with self._lock:
            figures = FiguresByType.merged([self._past, self._slices[-1]]).to_dict()
            per_type = figures.pop("per_type")
            inputs = dict(self._inputs)
            return figures | {"truncated_pairs": self._truncated_pairs, "inputs": inputs, "per_type": per_type}

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON.

        Besides the keys of `totals`: ``window``, figures over the latest mentions, ``window`` of them or up to a
        twentieth fewer; ``drift``, of the latest complete window by ``scores`` and ``types``; ``labelled``, figures of
        the labelled answers; ``alarms``, and their number in all; ``log_failures``, writes to the log that failed.
        """
        totals = self.totals()
        with self._lock:
            labels = self._labels.labels()
            state = totals | {
                "window": FiguresByType.merged(self._slices).to_dict(),
                "windows": self._windows,
                "drift": {name: asdict(drift) for name, drift in self._drift.items()},
                "alarms": [asdict(alarm) for alarm in self._alarms],
                "alarm_count": self._alarm_count,
                "log_failures": self._log_failures,
            }
        # Outside the lock, so that no request waits for a bootstrap.
        return state | {"labelled": labelled_report(labels)}

    @property
    def _mentions(self) -> int:
        return self._past.total.mentions + self._slices[-1].total.mentions

    def _start_window(self) -> None:
        self._in_window = self._lacking = 0
        if self.reference:
            self._scores = np.zeros(len(self.reference.scores.cells), np.int64)
            self._types = np.zeros(len(self.reference.types.cells), np.int64)

    def _end_window(self) -> None:
        self._windows += 1
        entries = []
        if self.reference:
            level = level_of_look(self.alpha / 2, self._windows) / 2
            self._drift = {
                "scores": self.reference.scores.drift(self._scores),
                "types": self.reference.types.drift(self._types),
            }
            moved = {k for k, drift in self._drift.items() if drift.p_value <= level and drift.psi >= SMALLEST_PSI}
            # Persistent drift is reported once, and again only after it has disappeared.
            for kind in sorted(moved - self._moved):
                entries.append(self._raise(kind, self._explain(kind, self._drift[kind], level)))
            self._moved = moved
        entries.append(
            {"event": "window", "window": self._windows, "mentions": self._mentions}
            | {"figures": FiguresByType.merged(self._slices).total.to_dict()}
            | {"drift": {name: asdict(drift) for name, drift in self._drift.items()}}
        )
        self._start_window()
        # Last, so that counts do not depend on the log.
        self._write(entries)

    def _explain(self, kind: str, drift: Drift, level: float) -> str:
        end = self._mentions
        what, remedy = {
            "scores": ("top scores", "if candidates or texts have changed permanently, calibrate again"),
            "types": ("semantic types", "check for changed upstream sources"),
        }[kind]
        cell = f"scores of {drift.cell}" if kind == "scores" and drift.cell != NO_CANDIDATES else drift.cell
        return (
            f"the {what} of mentions {end - self._in_window + 1:,} to {end:,} differ from the model's test split "
            f"(population stability index {drift.psi:.2f}, p = {drift.p_value:.1g}, tested at {level:.1g}): "
            f"{drift.share:.0%} are {cell}, {drift.reference_share:.0%} in the test split; {remedy}"
            + (f"; {self._lacking:,} of them have missing inputs" if self._lacking else "")
        )

    def _raise(self, kind: str, sentence: str) -> dict[str, Any]:
        alarm = Alarm(kind, self._mentions, sentence)
        self._alarms.append(alarm)
        self._alarm_count += 1
        return {"event": "alarm"} | asdict(alarm)

    def _write(self, entries: Sequence[dict[str, Any]]) -> None:
        if self._log is None:
            return
        # One file may hold windows of several processes, or from before and after a restart.
        about = {"time": _now(), "model": self.model, "since": self._since}
        try:
            self._log.write("".join(json.dumps(about | entry, ensure_ascii=False) + "\n" for entry in entries))
            self._log.flush()
        except (OSError, ValueError) as error:
            self._log_failures += 1
            if self._log_failures == 1:
                warnings.warn(
                    f"the monitor's log cannot be written ({error}); monitoring continues, and each window tries "
                    "again. Free some space; further failures are only counted, in log_failures",
                    stacklevel=2,
                )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
