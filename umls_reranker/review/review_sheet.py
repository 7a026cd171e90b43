"""A queue of predictions under review: one mention at a time; each choice is on disk before the next is shown."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import UserError
from ..core.files import json_sha256, written
from ..serving.prediction_log import LoggedMention, read_predictions
from .corrections import chosen_concept


class Step(NamedTuple):
    """A choice, or a skip, for the mention at a position of the queue."""

    position: int
    is_choice: bool


class ReviewSheet:
    """The lines of a queue and the reviewer's choices.

    Each choice is appended to `reviewed` as a line for `corrections.add_feedback`, and is on disk when `choose`
    returns. A reopened sheet resumes after the last choice. Safe to use from several threads. A choice for a mention
    that is not shown, such as a second click, does nothing.

    Args:
        queue: JSON Lines file of ``umls-reranker select_for_review``.
        reviewed: JSON Lines file of the choices, created with the first one.

    Attributes:
        mentions: mentions of the queue.
        chosen: position in the queue -> CUI (name of a candidate without one), or None if no concept is correct.

    Raises:
        UserError: the queue is missing or empty, or a line of either file is not a prediction (names the line).
    """

    def __init__(self, queue: Path, reviewed: Path) -> None:
        self.queue, self.reviewed = queue, reviewed
        self.mentions: list[LoggedMention] = list(read_predictions(queue))
        if not self.mentions:
            raise UserError(f"{queue} contains no mentions to review; umls-reranker select_for_review writes a queue")
        self.chosen: dict[int, str | None] = {}
        self._open = deque(range(len(self.mentions)))
        # What `undo` reverts, the most recent last.
        self._steps: list[Step] = []
        self._lock = threading.Lock()
        if reviewed.exists():
            self._resume()

    @property
    def position(self) -> int | None:
        """Position of the shown mention in the queue; None if all have a choice."""
        return self._open[0] if self._open else None

    @property
    def skipped(self) -> int:
        """Mentions that were skipped and have no choice yet."""
        return len({step.position for step in self._steps if not step.is_choice} - self.chosen.keys())

    @property
    def can_undo(self) -> bool:
        """Whether there is a choice or a skip to undo."""
        return bool(self._steps)

    def choose(self, position: int, chosen: str | None) -> None:
        """Write a choice and move to the next; None means that no concept is correct.

        Raises:
            ValueError: the choice is blank, not text, or not a concept (`chosen_concept`).
        """
        if chosen is not None and not (chosen := chosen.strip()):
            raise ValueError("no concept was given; type a CUI or choose that none is correct")
        with self._lock:
            if position != self.position:
                return
            if chosen is not None:
                chosen_concept(self.mentions[position].row["candidates"], chosen)
            row = dict(self.mentions[position].row) | {"chosen": chosen}
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            with self.reviewed.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._take(position, chosen)

    def skip(self, position: int) -> None:
        """Move a mention to the end of the queue."""
        with self._lock:
            if position == self.position:
                self._open.rotate(-1)
                self._steps.append(Step(position, is_choice=False))

    def undo(self) -> None:
        """Undo the last choice or skip, and show its mention again."""
        with self._lock:
            if not self._steps:
                return
            position, is_choice = self._steps.pop()
            if is_choice:
                self._write(_lines(self.reviewed.read_bytes())[:-1])
                del self.chosen[position]
            else:
                self._open.remove(position)
            self._open.appendleft(position)

    def _take(self, position: int, chosen: str | None) -> None:
        self._open.remove(position)
        self._steps.append(Step(position, is_choice=True))
        self.chosen[position] = chosen

    def _write(self, lines: Sequence[bytes]) -> None:
        with written(self.reviewed) as partial, partial.open("wb") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def _resume(self) -> None:
        content = self.reviewed.read_bytes()
        lines = _lines(content)
        if lines and not content.endswith(b"\n"):
            try:
                json.loads(lines[-1])
            except ValueError:
                # A process was killed while writing.
                lines.pop()
            self._write(lines)
        positions = {_identity(mention.row): position for position, mention in enumerate(self.mentions)}
        for logged in read_predictions(self.reviewed):
            position = positions.get(_identity(logged.row))
            if position is None or position in self.chosen or "chosen" not in logged.row:
                # A line of another queue: it is kept, with everything before it.
                self._steps.clear()
                continue
            self._take(position, logged.row["chosen"])


def _lines(content: bytes) -> list[bytes]:
    """Lines of the file of choices, without blank ones."""
    return [line for line in content.split(b"\n") if line.strip()]


def _identity(row: Mapping[str, Any]) -> str:
    return json_sha256({name: value for name, value in row.items() if name != "chosen"})
