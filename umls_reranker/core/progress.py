"""Progress on standard error, so that standard output stays clean for tables and JSON."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tqdm.auto import tqdm

SECONDS_BETWEEN_LINES = 30.0


def progress(iterable: Iterable | None = None, *, total: int | None = None, desc: str = "", unit: str = "it") -> Any:
    """A `tqdm` bar: redrawn in place and then removed on a terminal, one line every half minute in a log.

    Args:
        iterable: to iterate over, or None for a bar moved by ``bar.update(n)``.
        total: expected number of units; by default ``len(iterable)``.
        desc: short name of the work, shown before the bar.
        unit: what is counted, e.g. ``" names"``.

    Setting ``UMLS_RERANKER_PROGRESS=0`` turns all bars off.
    """
    on_terminal = sys.stderr.isatty()
    return tqdm(
        iterable,
        total=total,
        desc=desc,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=on_terminal,
        leave=not on_terminal,
        mininterval=0.2 if on_terminal else SECONDS_BETWEEN_LINES,
        delay=0 if on_terminal else SECONDS_BETWEEN_LINES,
        # In a log, nested bars must not move the cursor up and down.
        position=None if on_terminal else 0,
        # In a log, check the clock at each update; otherwise a tqdm thread adds lines in between.
        miniters=None if on_terminal else 1,
        disable=os.environ.get("UMLS_RERANKER_PROGRESS") == "0",
        file=sys.stderr if on_terminal else _Lines(),
    )


class _Lines:
    """A file for `tqdm` that writes each state of a bar as a line of its own."""

    def __init__(self) -> None:
        self._former = ""

    def write(self, text: str) -> None:
        line = text.strip()
        # A closed bar prints its last state again, with times and a rate of its own.
        state = line.rpartition("[")[0] or line
        if line and state != self._former:
            self._former = state
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


class StageLines:
    """One line per stage of a run: what it does, how long it took, and the time left.

    Args:
        titles: stage -> what it does, in order.
        minutes: stage -> minutes it took elsewhere. The time left is estimated from them and from the speed of the
            finished stages here. Without minutes, no time is shown.
        clock: seconds.
    """

    def __init__(
        self,
        titles: Mapping[str, str],
        minutes: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._titles, self._clock = dict(titles), clock
        self._expected = {stage: 60.0 * (minutes or {}).get(stage, 0.0) for stage in titles}
        self._took: dict[str, float] = {}
        self._stage, self._started = "", clock()

    def begin(self, stage: str) -> None:
        self._stage, self._started = stage, self._clock()
        self.show()

    def show(self) -> None:
        """Redraw the line of the current stage; does nothing without a terminal."""
        if sys.stderr.isatty():
            seconds = self._clock() - self._started
            rest = max(self._pace() * self._expected[self._stage] - seconds, 0.0)
            self._write(f"\r{self._line(seconds, self._left(rest)):<80}")

    def end(self, worked: bool = True) -> None:
        """Write the final line of the current stage.

        Args:
            worked: False if its output already existed, which says nothing about the machine's speed.
        """
        seconds = self._clock() - self._started
        if worked:
            self._took[self._stage] = seconds
        line = self._line(seconds, self._left() if worked else "nothing to do")
        self._write(f"\r{line:<80}\n" if sys.stderr.isatty() else f"{line}\n")

    def _pace(self) -> float:
        """The ratio of actual to expected time over the finished stages, and a minute as expected before them."""
        known = [stage for stage in self._took if self._expected[stage]]
        took, expected = (sum(times[stage] for stage in known) for times in (self._took, self._expected))
        # A first stage of seconds says little about the others.
        return (60.0 + took) / (60.0 + expected)

    def _left(self, rest_of_stage: float = 0.0) -> str:
        stages = list(self._expected)
        later_stages = stages[stages.index(self._stage) + 1 :]
        seconds = rest_of_stage + self._pace() * sum(self._expected[name] for name in later_stages)
        return f"about {_clock_time(seconds)} left" if seconds else ""

    def _line(self, seconds: float, note: str) -> str:
        number = list(self._titles).index(self._stage) + 1
        title = self._titles[self._stage]
        return f"{number}/{len(self._titles)}  {title:<40} {_clock_time(seconds):>7}   {note}".rstrip()

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
