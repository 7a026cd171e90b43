"""What of a corpus is malformed: it is left out, counted, and refused if it is too much."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ..core.errors import Malformed, UserError

Piece = TypeVar("Piece")
Parsed = TypeVar("Parsed")

# A larger share of faulty annotations stops the reading.
MAX_FAULTY_SHARE = 0.02
# Number of faults that a report and a message show.
FAULTS_SHOWN = 10


class Faults:
    """The documents and annotations of a corpus that are left out because they are malformed.

    Attributes:
        reasons: their number by reason.
        first: the first `FAULTS_SHOWN` of them, with file and place.
        requires_ids: whether an annotation without the field of its concept is malformed.
    """

    requires_ids = True

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()
        self.first: list[str] = []

    def add(self, where: str, problem: Malformed) -> None:
        """Count one, at this file and place."""
        self.reasons[problem.reason] += 1
        if len(self.first) < FAULTS_SHOWN:
            self.first.append(f"{where}: {problem}")

    def parsed(
        self, pieces: Iterable[tuple[str, Piece]], parse: Callable[[Piece], Parsed]
    ) -> Iterator[tuple[str, Parsed]]:
        """Yield the parsed pieces with their places; those that are `Malformed` are counted."""
        for where, piece in pieces:
            try:
                yield where, parse(piece)
            except Malformed as problem:
                self.add(where, problem)

    def require_few(self, sound: int) -> None:
        """Raise a UserError with the first faults if they are too many for so many sound ones."""
        count = self.reasons.total()
        if count > MAX_FAULTY_SHARE * (count + sound):
            raise UserError(
                f"{count:,} of {count + sound:,} annotations are malformed, "
                f"more than {MAX_FAULTY_SHARE:.0%}; correct the file, or choose another. "
                f"The first are: {'; '.join(self.first)}"
            )
