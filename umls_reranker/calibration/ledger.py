"""The ledger: which study labelled documents belong to, for all models made on this machine.

A model made anew from ``built-in`` knows of no study; the ledger does. It holds hashes alone, a
file for each study, in the user's cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..core.errors import UserError
from ..core.json_files import read_json, write_json
from .study import Study

FOLDER = Path("umls_reranker") / "studies"


class KnownStudy(NamedTuple):
    """A study that some mentions were labelled for.

    Attributes:
        study: the study.
        documents: hashes of those of its documents that the mentions are of.
    """

    study: Study
    documents: frozenset[str]


@dataclass(frozen=True)
class Ledger:
    """The studies of labelled mentions.

    Attributes:
        folder: where they are kept; None: nowhere.
    """

    folder: Path | None

    @classmethod
    def of_user(cls) -> Ledger:
        """The ledger in ``$XDG_CACHE_HOME``, or else ``~/.cache``."""
        cache = os.environ.get("XDG_CACHE_HOME")
        if cache:
            return cls(Path(cache) / FOLDER)
        try:
            return cls(Path.home() / ".cache" / FOLDER)
        except RuntimeError:
            # A process may have no home.
            return cls(None)

    def studies_of(self, mentions: Mapping[str, str]) -> Iterator[KnownStudy]:
        """Yield the studies for which any of the mentions was labelled.

        Args:
            mentions: hash of a mention -> hash of its document.
        """
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.json")):
            # One that cannot be read is of a killed process, or of another version.
            with suppress(UserError, OSError, TypeError, AttributeError):
                content = read_json(path)
                labelled = mentions.keys() & content["mentions"]
                if labelled:
                    study = Study.from_dict(content["study"], path)
                    yield KnownStudy(study, frozenset(mentions[key] for key in labelled))

    def add(self, study: Study, mentions: Mapping[str, str]) -> str | None:
        """Note that mentions were labelled for a study, with its results.

        Returns:
            Why it could not be noted, or None.
        """
        if self.folder is None:
            return "there is no home folder"
        path = self.folder / f"{study.id}.json"
        labelled = {*mentions}
        with suppress(UserError, OSError, TypeError, AttributeError):
            former = read_json(path)
            labelled |= {*former["mentions"]}
            study = study.joined(Study.from_dict(former["study"], path))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(path, {"study": study.to_dict(), "mentions": sorted(labelled)})
        except OSError as error:
            return str(error)
        return None
