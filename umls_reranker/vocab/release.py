"""The files of a UMLS release, and what it says of itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from ..core.errors import UserError
from ..core.text_files import read_lines
from .rrf_tables import RRF_TABLES

REQUIRED_TABLES = ("MRCONSO", "MRSTY")


def release_files(
    umls_dir: Path, unused: Collection[str] = (), required: Collection[str] = REQUIRED_TABLES
) -> dict[str, Path]:
    """The files to read from a UMLS release, by name; plain ones come before ``.gz``.

    Args:
        umls_dir: folder META of the release.
        unused: tables to skip, e.g. ``MRREL``.
        required: tables that must exist; the others are left out if they do not, and so is
            ``release.dat``, which MetamorphoSys writes next to META or into it.

    Raises:
        UserError: a required file is missing.
    """
    names = {name: (f"{name}.RRF", f"{name}.RRF.gz") for name in RRF_TABLES if name not in unused}
    paths = {name: [umls_dir / file for file in files] for name, files in names.items()}
    paths["release.dat"] = [
        folder / "release.dat" for folder in (umls_dir, umls_dir.absolute().parent)
    ]
    files = {name: next(filter(Path.is_file, some), None) for name, some in paths.items()}
    for name in required:
        if files[name] is None:
            inner_folders = (umls_dir / "META", umls_dir / "umls/META")
            meta = next(filter(Path.is_dir, inner_folders), None)
            hint = f"did you mean {meta}?" if meta else "give the folder META of a release"
            raise UserError(f"{umls_dir / name}.RRF does not exist; {hint}")
    return {name: path for name, path in files.items() if path is not None}


def read_release(files: Mapping[str, Path]) -> dict[str, str]:
    """``name``, such as 2017AA, and ``date`` of the release, as far as they are stated."""
    release: dict[str, str] = {}
    if "release.dat" not in files:
        return release
    for _, line in read_lines(files["release.dat"]):
        key, _, value = line.decode("utf-8", errors="replace").partition("=")
        if value and key.strip() in ("umls.release.name", "umls.release.date"):
            release[key.strip().rpartition(".")[2]] = value.strip()
    return release
