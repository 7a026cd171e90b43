"""The formats that ranked mentions can be written in, each listed in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.errors import UserError
from .formats.fhir import Fhir
from .formats.omop import Omop, Usagi
from .formats.sssom import Sssom
from .outputs import Arrow, Csv, JsonLines, OutputFormat, Parquet, Tsv

OUTPUT_FORMATS: dict[str, type[OutputFormat]] = {
    kind.name: kind
    for kind in (
        JsonLines,
        Csv,
        Tsv,
        Parquet,
        Arrow,
        Sssom,
        Omop,
        Usagi,
        Fhir,
    )
}


def format_of(
    target: Path,
    name: str | None = None,
    formats: Mapping[str, type[OutputFormat]] = OUTPUT_FORMATS,
) -> type[OutputFormat]:
    """The format of this name, or else the one that files with the target's ending have.

    Raises:
        UserError: there is none.
    """
    if name is not None:
        if name not in formats:
            raise UserError(f"{name} is no format; choose from {', '.join(formats)}")
        return formats[name]
    by_ending = {ending: kind for kind in formats.values() for ending in kind.endings}
    if target.suffix not in by_ending:
        raise UserError(f"{target}: the output must end in {', '.join(by_ending)}")
    return by_ending[target.suffix]
