"""The parts of an output: a file for each batch of rows, in a hidden folder beside the output.

A killed job goes on with those that are its own and as they were written.
"""

import glob
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..core.files import hold, remove, written
from ..core.hashes import file_sha256, json_sha256
from .row_counts import RowCounts
from .rows import RankedRows

# What the parts of a folder were made of.
JOB_FILE = "job.json"
# The file that a job locks.
PARTS_LOCK = ".lock"
PARTS = "*.arrow"
# Digits of the hash in the name of a folder.
KEY_LENGTH = 16
# The most changes that are named.
NAMED_CHANGES = 3


class PartsFolder:
    """The folder of a job's parts, which several processes may share.

    Its name is of the output and of all that decides the parts, so no process of another job writes
    into it. Beside a part is its state, which is written after it: the part's number and rows, and
    the hash of its bytes. Where these differ from what is expected, the part does not count.

    Args:
        target: the output.
        made_of: all that decides the parts, by names for messages.

    Attributes:
        path: the folder.
    """

    def __init__(self, target: Path, made_of: Mapping[str, Any]) -> None:
        self._target = target
        # As it is read again: with lists in place of tuples.
        self._made_of = json.loads(json.dumps(made_of))
        self.path = target.with_name(f".{target.name}.{json_sha256(made_of)[:KEY_LENGTH]}.parts")

    @contextmanager
    def held(self) -> Iterator[list[str]]:
        """Make and lock the folder, and remove those of other jobs with the same output.

        Yields what of each of these, if it had parts, is not the same.

        Raises:
            UserError: another process writes the output.
        """
        changes = self._remove_others()
        self.path.mkdir(exist_ok=True)
        with hold(self.path / PARTS_LOCK, f"the same command is already writing {self._target}"):
            _write_json(self.path / JOB_FILE, self._made_of)
            yield changes

    def _remove_others(self) -> list[str]:
        changes = []
        any_key = "[0-9a-f]" * KEY_LENGTH
        pattern = f".{glob.escape(self._target.name)}.{any_key}.parts"
        for other in sorted({*self._target.parent.glob(pattern)} - {self.path}):
            with hold(other / PARTS_LOCK, f"another command is already writing {self._target}"):
                if any(other.glob(PARTS)):
                    changes.append(self._changes_since(other))
                remove(other)
        return changes

    def is_empty(self) -> bool:
        """Whether there is no part, whole or not."""
        return not any(self.path.glob(PARTS))

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.path / f"{number:06}.arrow"

    def has(self, number: int, rows: int) -> bool:
        """Whether a part is there with all its rows, as it was written."""
        with suppress(OSError, ValueError):
            state = json.loads(self._state_file(number).read_bytes())
            return state == self._state(number, rows)
        return False

    def add(self, number: int, rows: RankedRows) -> None:
        """Write a part, and then its state."""
        for path in (self.part(number), self._state_file(number)):
            # No file can take the place of a folder.
            if path.is_dir():
                remove(path)
        rows.save(self.part(number))
        _write_json(self._state_file(number), self._state(number, len(rows.errors)))

    def _state_file(self, number: int) -> Path:
        return self.part(number).with_suffix(".json")

    def _state(self, number: int, rows: int) -> dict[str, Any]:
        return {"number": number, "rows": rows, "sha256": file_sha256(self.part(number))}

    def _changes_since(self, other: Path) -> str:
        """What differs between this job and that of another folder, in words."""
        try:
            former = json.loads((other / JOB_FILE).read_bytes())
            both = former | self._made_of
        except (OSError, ValueError, TypeError):
            return "what those were made of cannot be read"
        names = [name for name in both if former.get(name) != self._made_of.get(name)]
        named = ", ".join(names[:NAMED_CHANGES])
        further = len(names) - NAMED_CHANGES
        return f"{named} and {further:,} more changed" if further > 0 else f"{named} changed"


class Parts(Iterable[RankedRows]):
    """The finished parts of an output, in order; iterating holds one of them at a time.

    Args:
        folder: where they lie.
        count: how many there are.

    Attributes:
        counts: the sum of their counts.
        first_error: place and reason of the first row with an error.
    """

    def __init__(self, folder: PartsFolder, count: int) -> None:
        self._paths = [folder.part(number) for number in range(count)]
        self.counts = RowCounts()
        self.first_error: str | None = None
        for path in self._paths:
            counts, first_error = RankedRows.outcome(path)
            self.counts += counts
            self.first_error = self.first_error or first_error

    def __iter__(self) -> Iterator[RankedRows]:
        return map(RankedRows.load, self._paths)


def _write_json(path: Path, state: Mapping[str, Any]) -> None:
    """Write JSON atomically; a name of a file may have bytes that are no text, so all is ASCII."""
    with written(path) as partial:
        partial.write_text(json.dumps(state), encoding="ascii")
