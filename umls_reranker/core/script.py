"""What every script shares: its command line, one-line errors, skip-or-run of a stage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError
from .stages import Stage

__all__ = ["CommandParser", "run_script", "should_run"]


class CommandParser(argparse.ArgumentParser):
    """The command line of ``umls-reranker SCRIPT``; options are spelled out, and mistakes are one line.

    Args:
        description: the script's docstring.
        options: of `argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(
            prog=f"umls-reranker {Path(sys.argv[0]).stem}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main`; what the user can mend ends as ``error: ...`` and exit code 2, without a traceback."""
    # Python puts the script's own folder first on the path, where evaluate.py would hide the library `evaluate`.
    here = Path(sys.argv[0]).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # A fresh head on a base model is meant; transformers would print a report about it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Threads that spin while they wait make training many times slower as soon as anything else uses a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = main() or 0
        leave_process_group()
        sys.exit(code)
    except UserError as error:
        message = str(error)
    except OSError as error:
        # A full disk, a missing permission: the operating system's own words name the file.
        message = str(error)
    except KeyboardInterrupt:
        print("\nstopped; finished stages are kept, run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def leave_process_group() -> None:
    """Leave the group of a launch: threads of it that still run when Python ends can abort a process that is done."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def should_run(stage: Stage, *, overwrite: bool, dry_run: bool) -> bool:
    """Whether the stage has to be run; says on standard error what happens and why, once for all processes.

    Raises:
        UserError: a killed run left something that this run neither resumes nor was told to drop.
    """
    needed = overwrite or not stage.is_done()
    if os.environ.get("RANK", "0") == "0":
        does = "up to date in" if not needed else "would be made in" if dry_run else "->"
        resumes = needed and not overwrite and stage.resumes()
        ending = ", resuming what a killed run left" if resumes else ""
        print(f"[{stage.name}] {does} {stage.folder}{ending}", file=sys.stderr)
    return needed and not dry_run
