"""A UMLS release folder: its files, plain, gzip or in the parts that NLM ships, and the name of the release.

The name is in MRSAB.RRF, in MRDOC.RRF, or in ``release.dat``, which MetamorphoSys writes as lines
``umls.release.name=2017AA``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from ..core.errors import UserError
from ..core.lines import Faults, read_lines, skipped_lines
from .rrf_tables import TABLES, read_columns

RELEASE_NAME = re.compile(r"[0-9]{4}[A-Z]{2}")
PART = re.compile(r"\.([a-z]{2})(?:\.gz)?")
PART_NAMES = [first + second for first in ascii_lowercase for second in ascii_lowercase]
NETWORK_FILES = {"SRDEF": "SRDEF", "SemGroups": "SemGroups.txt"}
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
        The paths; empty if the file does not exist.

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
            raise UserError(f"{folder / name} is split into files, but {name}.{expected} is missing; add it")
    return tuple(parts.values())


def release_files(
    umls_dir: Path, semantic_network_dir: Path | None, unused: Container[str] = ()
) -> dict[str, tuple[Path, ...]]:
    """The files to read from a UMLS release, each with its parts; optional ones only if they exist.

    Args:
        umls_dir: folder META of the release.
        semantic_network_dir: folder NET; None uses the built-in network.
        unused: optional files to skip, by name, e.g. ``MRREL``.

    Raises:
        UserError: a required file, or a part of a file, is missing.
    """
    tables = {name: f"{name}.RRF" for name in TABLES if name not in unused}
    files = _files_of("umls_dir", umls_dir, tables)
    if semantic_network_dir is not None:
        files |= _files_of("semantic_network_dir", semantic_network_dir, NETWORK_FILES)
    # MetamorphoSys writes it next to META or into it.
    for path in (umls_dir / "release.dat", umls_dir.absolute().parent / "release.dat"):
        if path.is_file():
            return files | {"release.dat": (path,)}
    return files


def dictionary_files(umls_dir: Path) -> dict[str, tuple[Path, ...]]:
    """``MRCONSO`` (names) and ``MRSTY`` (semantic types), or whichever of them exists, each with its parts.

    Raises:
        UserError: neither exists, or a part is missing.
    """
    files = {name: find_release_file(umls_dir, f"{name}.RRF") for name in ("MRCONSO", "MRSTY")}
    if not any(files.values()):
        hint = _nearby(umls_dir, "MRCONSO.RRF", "MRSTY.RRF") or "give the folder that contains them, META of a release"
        raise UserError(f"{umls_dir} contains neither MRCONSO.RRF nor MRSTY.RRF; {hint}")
    return {name: paths for name, paths in files.items() if paths}


def _files_of(key: str, folder: Path, names: Mapping[str, str]) -> dict[str, tuple[Path, ...]]:
    """The files that exist, by name; `key` is the recipe key of the folder."""
    files = {name: find_release_file(folder, file) for name, file in names.items()}
    for name in REQUIRED_FILES:
        if name in files and not files[name]:
            hint = _nearby(folder, names[name]) or f"set the recipe key {key} to the folder that contains it"
            raise UserError(f"{folder / names[name]} does not exist; {hint}")
    return {name: paths for name, paths in files.items() if paths}


def _nearby(folder: Path, *names: str) -> str | None:
    """A question that names a subfolder with one of the files, if there is one."""
    for inner in (folder / "META", folder / "umls/META"):
        if any(find_release_file(inner, name) for name in names):
            return f"did you mean {inner}?"
    return None


def read_release(
    files: Mapping[str, tuple[Path, ...]],
    *,
    languages: Sequence[str] = (),
    sources: Sequence[str] = (),
    on_error: str = "stop",
) -> dict[str, Any]:
    """The release, and the versions and restrictions of its sources.

    Args:
        files: ``release.dat``, ``MRDOC`` and ``MRSAB`` if they exist, as `find_release_file` returns them.
        languages: list only sources with these values of LAT; empty lists all.
        sources: list only sources with these values of RSAB; empty lists all.
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
    release: dict[str, Any] = {"name": None, "name_from": None}
    faults = [Faults(files[name], on_error) for name in ("MRSAB", "MRDOC") if name in files]
    if "MRSAB" in files:
        columns = ("VSAB", "RSAB", "IMETA", "SRL", "LAT", "CURVER", "SABIN")
        release |= _versions(_rows("MRSAB", files, columns, faults[0]), languages, sources)
    statements: list[tuple[str, str, str]] = []
    if "MRDOC" in files:
        for row in _rows("MRDOC", files, ("DOCKEY", "VALUE", "EXPL"), faults[-1]):
            if row["DOCKEY"] == "RELEASE":
                statements.append(("MRDOC", row["VALUE"], row["EXPL"]))
    if "release.dat" in files:
        for _, line in read_lines(files["release.dat"]):
            key, _, value = line.decode("utf-8", errors="replace").partition("=")
            statements.append(("release.dat", key.strip(), value.strip()))
    for origin, key, value in statements:
        if value and key == "umls.release.name":
            release |= {"name": value, "name_from": origin}
        elif value and key == "umls.release.date":
            release["date"] = value
    return release | skipped_lines(*faults)


def _rows(
    name: str, files: Mapping[str, tuple[Path, ...]], columns: Sequence[str], faults: Faults
) -> list[dict[str, str]]:
    batches = read_columns(TABLES[name], files[name], columns, faults)
    return [row for batch in batches for row in batch.to_pylist()]


def _versions(rows: Sequence[dict[str, str]], languages: Sequence[str], sources: Sequence[str]) -> dict[str, Any]:
    """Release and sources as in MRSAB."""
    current = [row for row in rows if row["CURVER"] == "Y" and row["SABIN"] == "Y"]
    versions: dict[str, Any] = {}
    if names := [row["IMETA"] for row in current if RELEASE_NAME.fullmatch(row["IMETA"])]:
        versions = {"name": max(names), "name_from": "MRSAB"}
    used = []
    for row in current:
        if (not languages or row["LAT"] in languages) and (not sources or row["RSAB"] in sources):
            level = int(row["SRL"]) if row["SRL"].isdecimal() else None
            used.append(
                {
                    "source": row["RSAB"],
                    "version": row["VSAB"],
                    "language": row["LAT"],
                    "restriction_level": level,
                }
            )
    levels = [source["restriction_level"] for source in used if source["restriction_level"] is not None]
    used.sort(key=lambda source: (source["source"], source["version"]))
    return versions | {"sources": used, "highest_restriction_level": max(levels, default=None)}
