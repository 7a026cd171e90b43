"""A queue of predictions under review: one mention at a time; each choice is on disk before the next is shown."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import json_sha256
from ..core.lines import of_characters
from ..serving.prediction_log import LoggedMention, read_predictions
from .corrections import chosen_concept

__all__ = ["ReviewSheet"]


class ReviewSheet:
    """The lines of a queue and the reviewer's choices.

    Each choice is appended to `reviewed` as a line for `corrections.add_feedback`, and is on disk when `choose`
    returns. A reopened sheet resumes after the last choice. Safe to use from several threads. A choice for a mention
    that is not shown, such as a second click, does nothing.

    Args:
        queue: JSON Lines file of umls-reranker select_for_review.
        reviewed: JSON Lines file of the choices, created with the first one.

    Attributes:
        mentions: of the queue.
        chosen: place in the queue -> CUI (name of a candidate without one), or None if no concept is right.

    Raises:
        UserError: the queue is missing or empty, or a line of either file is not a prediction (names the line).
    """

    def __init__(self, queue: Path, reviewed: Path) -> None:
        self.queue, self.reviewed = queue, reviewed
        self.mentions: list[LoggedMention] = list(read_predictions(queue))
        if not self.mentions:
            raise UserError(f"{queue} holds no mention to review; umls-reranker select_for_review makes a queue")
        self.chosen: dict[int, str | None] = {}
        self._open = deque(range(len(self.mentions)))
        # Place and, for choices, the start of its line in the file.
        self._past: list[tuple[int, int | None]] = []
        self._lock = threading.Lock()
        if reviewed.exists():
            self._resume()

    @property
    def place(self) -> int | None:
        """Place of the shown mention; None if all have a choice."""
        return self._open[0] if self._open else None

    @property
    def skipped(self) -> int:
        """Mentions that were skipped and have no choice yet."""
        return len({place for place, start in self._past if start is None} - self.chosen.keys())

    @property
    def can_undo(self) -> bool:
        """Whether there is a choice or a skip to undo."""
        return bool(self._past)

    def choose(self, place: int, chosen: str | None) -> None:
        """Write a choice and move to the next; None means that no concept is right.

        Raises:
            ValueError: the choice is blank, or no text, or no concept (`chosen_concept`).
        """
        if chosen is not None and not (chosen := of_characters(chosen).strip()):
            raise ValueError("no concept was given; type a CUI, or choose that none is right")
        with self._lock:
            if place != self.place:
                return
            if chosen is not None:
                chosen_concept(self.mentions[place].row["candidates"], chosen)
            row = dict(self.mentions[place].row) | {"chosen": chosen}
            with self.reviewed.open("ab") as file:
                start = file.seek(0, os.SEEK_END)
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            self._take(place, chosen, start)

    def skip(self, place: int) -> None:
        """Move a mention to the end of the queue."""
        with self._lock:
            if place == self.place:
                self._open.rotate(-1)
                self._past.append((place, None))

    def undo(self) -> None:
        """Undo the last choice or skip, and show its mention again."""
        with self._lock:
            if not self._past:
                return
            place, start = self._past.pop()
            if start is None:
                self._open.remove(place)
            else:
                with self.reviewed.open("r+b") as file:
                    file.truncate(start)
                    os.fsync(file.fileno())
                del self.chosen[place]
            self._open.appendleft(place)

    def _take(self, place: int, chosen: str | None, start: int) -> None:
        self._open.remove(place)
        self._past.append((place, start))
        self.chosen[place] = chosen

    def _resume(self) -> None:
        content = self.reviewed.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            try:
                json.loads(content[whole:])
            except ValueError:
                # A process was killed while writing.
                os.truncate(self.reviewed, whole)
            else:
                with self.reviewed.open("ab") as file:
                    file.write(b"\n")
        places = {_identity(mention.row): place for place, mention in enumerate(self.mentions)}
        lines = content.split(b"\n")
        firsts = accumulate((len(line) + 1 for line in lines), initial=0)
        # As `read_predictions`, without blank lines.
        starts = [first for first, line in zip(firsts, lines, strict=False) if line.strip()]
        for start, logged in zip(starts, read_predictions(self.reviewed), strict=False):
            place = places.get(_identity(logged.row))
            if place is None or place in self.chosen or "chosen" not in logged.row:
                # A line of another queue: it stays, with everything before it.
                self._past.clear()
                continue
            self._take(place, logged.row["chosen"], start)


def _identity(row: Mapping[str, Any]) -> str:
    return json_sha256({name: value for name, value in row.items() if name != "chosen"})
