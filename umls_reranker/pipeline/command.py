"""What all commands share: the parser, one-line errors, and exit codes."""

import argparse
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ..core.errors import UserError, printable

# Variables that the environment may set otherwise.
ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "true",
    # A new head on a base model is intended; transformers would print a report about it.
    "TRANSFORMERS_VERBOSITY": "error",
    # Hides progress bars of downloads, weights and shards; set 0 to show them.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Threads that spin while waiting make training many times slower if anything else uses a core.
    "OMP_WAIT_POLICY": "PASSIVE",
}
# Exit code of the process that ends a run; 1 is that of a crash.
MISSED_TARGET = 3
# Help of options that several scripts share: labelled lists, and a dictionary that adds to them.
LISTS_HELP = (
    "your labelled candidate lists: a file or folder of .jsonl, .parquet or .arrow with one "
    "mention per row (its candidates, top candidate first, its document, and its gold concept "
    "even if that is not in the list), or of .csv or .tsv with one candidate per row (mention_id, "
    'doc_id, mention, cui, name, score, gold); e.g. {"entity": "cold", "candidates": [{"name": '
    '"Common Cold", "cui": "C0009443", "NAME_score": 0.9}], "doc_id": "d1", "cui": "C0009443"}'
)
EACH_ROW_IS_A_DOCUMENT = (
    "a row without doc_id is a document, such as a term, and documents of one row each may certify"
)
DICTIONARY_HELP = (
    "an index folder, folder META of a UMLS release (MRCONSO.RRF, MRSTY.RRF or both), or a file of "
    "names: a table "
    "(.csv, .tsv, .jsonl, .parquet) of id, name and optionally preferred and semantic_type, "
    "or lines id|id||name|name; adds missing fields to candidates by their id (key cui): name, "
    "preferred_name, semantic_types, and synonym_score (similarity of the mention to the most "
    "similar name of the concept); a model calibrated with synonym_score needs it at serving too"
)

# Endings of the options whose empty word takes back what a recipe says.
TAKEN_BACK = ("revision", "index_parameters")
# How recipes write a list without items.
EMPTY_LIST = "[]"


class CommandParser(argparse.ArgumentParser):
    """The command line of ``umls-reranker SCRIPT``: no abbreviated options, one-line errors.

    Args:
        description: the script's docstring.
        options: options of `argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(
            prog=f"umls-reranker {Path(sys.argv[0]).stem}",
            description=description,
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=32),
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse options, whose names may have dashes, too; an empty word is an error."""
        if args is None:
            args = sys.argv[1:]
        words: list[str] = []
        for word in args:
            if word.startswith("--"):
                option, mark, value = word.removeprefix("--").partition("=")
                word = f"--{option.replace('-', '_')}{mark}{value}"
            # Of an empty list, only the option is said.
            word = word.removesuffix(f"={EMPTY_LIST}")
            self._require_value(word, words)
            if word != EMPTY_LIST:
                words.append(word)
        return super().parse_known_args(words, namespace)

    def _require_value(self, word: str, before: Sequence[str]) -> None:
        """Refuse an empty word, such as an unset variable: as a path it is the current folder.

        One of the options of `TAKEN_BACK` may be empty.
        """
        last = before[-1] if before else self.prog
        option, mark, value = word.partition("=")
        if not word:
            option = last
        elif not (word.startswith("--") and mark and not value):
            return
        if not option.endswith(TAKEN_BACK):
            self.error(
                f"the word after {option!r} is empty; is a shell variable unset? "
                "The current folder is ."
            )

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError` in place of a usage text."""
        raise UserError(f"{message}; see {self.prog} --help")


def number_in(kind: type, least: float = -math.inf, most: float = math.inf) -> Callable[[str], Any]:
    """A function that reads a number of a type; ArgumentTypeError: it is none, or out of range."""

    def read(word: str) -> Any:
        try:
            number = kind(word)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{word!r} is not a number of type {kind.__name__}"
            ) from None
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"{word} is out of range; give a number from {least:,} to {most:,}"
            )
        return number

    return read


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main`.

    Errors that users can fix are printed as ``error: ...``, with exit code 2 and no traceback.
    """
    os.environ.update(ENVIRONMENT | os.environ)
    _share_cores()
    warnings.formatwarning = _one_line
    # A letter that the encoding of the output lacks, as on Windows, is escaped, not an error.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
        sys.stdout.flush()
        if "torch.distributed" in sys.modules:
            from ..core.devices import leave_process_group

            leave_process_group()
        sys.exit(code)
    except BrokenPipeError:
        # Standard output was closed by its reader, such as `head`. Python writes the rest on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (UserError, OSError) as error:
        # Of a full disk or a missing permission, the operating system's message names the file.
        message = str(error)
    except ValueError as error:
        # Python's own words, wherever such a path is used.
        if "embedded null" not in str(error):
            raise
        message = "a path or argument contains a NUL character (\\0)"
    except KeyboardInterrupt:
        print(
            "\ninterrupted; finished stages are kept, run the same command again to resume",
            file=sys.stderr,
        )
        sys.exit(130)
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


def _share_cores() -> None:
    """Divide the cores among the processes of a launch; launchers leave each process one core."""
    launched = {"LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys()
    if launched and os.environ.get("OMP_NUM_THREADS") == "1":
        from ..core.parallel import started_processes, usable_cores

        os.environ["OMP_NUM_THREADS"] = str(
            max(1, usable_cores() // started_processes("LOCAL_WORLD_SIZE"))
        )


def _one_line(message: Warning | str, category: type[Warning], *position: Any, **line: Any) -> str:
    """A warning for users, without its line of code; other categories keep their name."""
    kind = "warning" if category is UserWarning else category.__name__
    return f"{kind}: {printable(' '.join(str(message).split()))}\n"


def would_make(name: str, path: Path) -> None:
    """Say on standard error what a dry run would make."""
    print(f"[{name}] would be written to {path}", file=sys.stderr)
