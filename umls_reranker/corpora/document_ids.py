"""Lists of document ids, such as those of the documents of a split."""

from pathlib import Path

from ..core.errors import UserError
from ..core.text_files import excerpt, read_lines


def read_pmids(path: str | Path) -> list[str]:
    """Read a list of document ids, one per line, without blank lines and repetitions.

    Raises:
        UserError: the file is missing or empty, or a line is not one id (names file and line).
    """
    path = Path(path)
    ids: dict[str, None] = {}
    for number, line in read_lines(path):
        words = line.decode("utf-8", errors="replace").split()
        if len(words) > 1:
            raise UserError(
                f"{path}:{number}: expected one document id per line, found {len(words)} words: "
                f"{excerpt(words[0])} ..."
            )
        ids.update(dict.fromkeys(words))
    if not ids:
        raise UserError(f"{path} contains no document ids; expected one per line")
    return list(ids)
