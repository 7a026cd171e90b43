"""A UMLS release folder: its files, plain, gzip or in the parts that NLM ships, and the name of the release.

Columns are those of the UMLS Reference Manual, chapter 3 (MRSAB.RRF, MRDOC.RRF); ``release.dat`` is written by
MetamorphoSys as lines ``umls.release.name=2017AA``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.lines import Faults, read_lines, skipped_lines
from .pipes import read_columns

__all__ = ["find_release_file", "read_release", "release_files"]

MRSAB = (
    *("VCUI", "RCUI", "VSAB", "RSAB", "SON", "SF", "SVER", "VSTART", "VEND", "IMETA", "RMETA", "SLC", "SCC", "SRL"),
    *("TFR", "CFR", "CXTY", "TTYL", "ATNL", "LAT", "CENC", "CURVER", "SABIN", "SSN", "SCIT"),
)
MRDOC = ("DOCKEY", "VALUE", "TYPE", "EXPL")
RELEASE_KEY = "umls.release."
RELEASE_NAME = re.compile(r"[0-9]{4}[A-Z]{2}")
PART = re.compile(r"\.([a-z]{2})(?:\.gz)?")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PART_NAMES = [first + second for first in LETTERS for second in LETTERS]
# Recipe key of the folder -> name in messages and manifests -> name of the file.
RELEASE_FILES = {
    "umls_dir": {name: f"{name}.RRF" for name in ("MRCONSO", "MRSTY", "MRDEF", "MRREL", "MRCUI", "MRSAB", "MRDOC")},
    "semantic_network_dir": {"SRDEF": "SRDEF", "SemGroups": "SemGroups.txt"},
}
REQUIRED_FILES = ("MRCONSO", "MRSTY", "SRDEF")


def find_release_file(folder: Path, name: str) -> tuple[Path, ...]:
    """The path of one file of the release, or of its parts in order, as `lines.open_binary` takes them.

    Looks for ``MRCONSO.RRF``, ``MRCONSO.RRF.gz``, and the parts ``MRCONSO.RRF.aa``, ``.ab`` and so on, each with or
    without ``.gz``. If several exist, the first of these is used, and a plain part before its ``.gz``. A missing last
    part cannot be detected.

    Args:
        folder: the folder that holds the files, e.g. META.
        name: e.g. ``MRCONSO.RRF``.

    Returns:
        the paths; empty if the file does not exist.

    Raises:
        UserError: a part before the last one is missing.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return (path,)
    parts: dict[str, Path] = {}
    for path in sorted(folder.glob(f"{name}.*")):
        match = PART.fullmatch(path.name.removeprefix(name))
        if match and path.is_file():
            parts.setdefault(match[1], path)
    for part, expected in zip(parts, PART_NAMES, strict=False):
        if part != expected:
            raise UserError(f"{folder / name} is in parts, but {name}.{expected} is missing; get that part")
    return tuple(parts.values())


def release_files(
    umls_dir: Path, semantic_network_dir: Path | None, unused: Container[str] = ()
) -> dict[str, tuple[Path, ...]]:
    """The files to read from a UMLS release, each with its parts; optional ones only if they exist.

    Args:
        semantic_network_dir: None uses the built-in network.
        unused: optional files to skip, by name, e.g. ``MRREL``.

    Raises:
        UserError: a required file, or a part of a file, is missing.
    """
    folders = {"umls_dir": umls_dir}
    if semantic_network_dir is not None:
        folders["semantic_network_dir"] = semantic_network_dir
    files: dict[str, tuple[Path, ...]] = {}
    for key, folder in folders.items():
        for name, file in RELEASE_FILES[key].items():
            found = find_release_file(folder, file) if name not in unused else ()
            if found:
                files[name] = found
            elif name in REQUIRED_FILES:
                below = (folder / part for part in ("META", "umls/META"))
                nearby = next((inner for inner in below if find_release_file(inner, file)), None)
                hint = f"did you mean {nearby}?" if nearby else f"set the recipe key {key} to the folder that holds it"
                raise UserError(f"{folder / file} does not exist; {hint}")
    # MetamorphoSys writes it next to META or into it.
    for path in (umls_dir / "release.dat", umls_dir.absolute().parent / "release.dat"):
        if path.is_file():
            return files | {"release.dat": (path,)}
    return files


def read_release(
    files: Mapping[str, tuple[Path, ...]],
    *,
    languages: Sequence[str] = (),
    sources: Sequence[str] = (),
    on_error: str = "stop",
) -> dict[str, Any]:
    """The release, and the versions and restrictions of its sources.

    Args:
        files: of ``release.dat``, ``MRDOC`` and ``MRSAB`` those that are there, as `find_release_file` gives them.
        languages, sources: list only the sources with these LAT and RSAB; empty lists all.
        on_error: ``"stop"`` at the first malformed line, or ``"skip"`` and count it.

    Returns:
        JSON-able: ``name`` (e.g. ``2017AA``, or None), ``name_from`` (the file that says so; MRSAB only knows the
        release in which a source was last brought up to date), and ``date`` where it is known; from MRSAB
        ``sources`` (each with ``source``, ``version``, ``language`` and ``restriction_level``, of those that are
        current and in the subset) and ``highest_restriction_level`` (0 to 4, or 9; UMLS license agreement,
        appendix 1); ``skipped`` lines and ``reasons``.

    Raises:
        UserError: a file is empty or broken; or a line is malformed (names file and line).
    """
    faults = {name: Faults(path, on_error) for name, path in files.items() if name in ("MRSAB", "MRDOC")}
    release: dict[str, Any] = {"name": None, "name_from": None}
    if "MRSAB" in files:
        rows = _current_sources(files["MRSAB"], faults["MRSAB"])
        names = [row["IMETA"] for row in rows if RELEASE_NAME.fullmatch(row["IMETA"])]
        if names:
            release |= {"name": max(names), "name_from": "MRSAB"}
        kept = [
            {
                "source": row["RSAB"],
                "version": row["VSAB"],
                "language": row["LAT"],
                "restriction_level": int(row["SRL"]) if row["SRL"].isdecimal() else None,
            }
            for row in rows
            if (not languages or row["LAT"] in languages) and (not sources or row["RSAB"] in sources)
        ]
        levels = [source["restriction_level"] for source in kept if source["restriction_level"] is not None]
        release["sources"] = sorted(kept, key=lambda source: (source["source"], source["version"]))
        release["highest_restriction_level"] = max(levels, default=None)
    told: list[tuple[str, str, str]] = []
    if "MRDOC" in files:
        told += [("MRDOC", *pair) for pair in _documented(files["MRDOC"], faults["MRDOC"])]
    if "release.dat" in files:
        told += [("release.dat", *pair) for pair in _properties(files["release.dat"])]
    for origin, key, value in told:
        if key == "name":
            release |= {"name": value, "name_from": origin}
        elif key == "date":
            release["date"] = value
    return release | skipped_lines(*faults.values())


def _current_sources(path: tuple[Path, ...], faults: Faults) -> list[dict[str, str]]:
    columns = ("VSAB", "RSAB", "IMETA", "SRL", "LAT", "CURVER", "SABIN")
    rows = [row for batch in read_columns(path, MRSAB, columns, ("RSAB",), faults) for row in batch.to_pylist()]
    return [row for row in rows if row["CURVER"] == "Y" and row["SABIN"] == "Y"]


def _documented(path: tuple[Path, ...], faults: Faults) -> Iterator[tuple[str, str]]:
    """Properties of the release in MRDOC, e.g. ``("name", "2017AA")``."""
    for batch in read_columns(path, MRDOC, MRDOC, ("DOCKEY",), faults):
        for row in batch.to_pylist():
            if row["DOCKEY"] == "RELEASE" and row["EXPL"]:
                yield row["VALUE"].removeprefix(RELEASE_KEY), row["EXPL"]


def _properties(path: tuple[Path, ...]) -> Iterator[tuple[str, str]]:
    """Properties of the release in release.dat; other lines describe the program that wrote it."""
    for _, line in read_lines(path):
        key, _, value = line.decode("utf-8", errors="replace").partition("=")
        if key.strip().startswith(RELEASE_KEY) and value.strip():
            yield key.strip().removeprefix(RELEASE_KEY), value.strip()
