"""Versions of a model side by side: their answers on the same test mentions."""

from os.path import expanduser
from pathlib import Path

from ..core.errors import UserError
from ..core.keys import NON_INFERIORITY_MARGIN
from ..evaluation.comparison import Comparison, compare
from ..evaluation.outcomes import OUTCOMES_FILE, Outcomes
from .file_names import MANIFEST
from .manifest import verify_files
from .model_download import snapshot


def compare_versions(
    present: Path, former: str, margin: float = NON_INFERIORITY_MARGIN
) -> Comparison:
    """Compare the answers of two versions, which `find_outcomes` finds; otherwise as `compare`."""
    outcomes = (Outcomes.load(find_outcomes(version)) for version in (str(present), former))
    return compare(*outcomes, margin=margin)


def find_outcomes(location: str) -> Path:
    """The answers of a version on its test split: ``outcomes.parquet`` of a folder or repo.

    Args:
        location: a folder, the file itself, or a Hub repo as ``NAMESPACE/NAME`` or
            ``NAMESPACE/NAME@REVISION``.

    Raises:
        UserError: the location does not exist or holds no outcomes, or they differ from those that
            its manifest lists.
    """
    path = Path(expanduser(location))
    files = [path, path / OUTCOMES_FILE, path / "report" / OUTCOMES_FILE]
    if not path.exists():
        repo_id, _, revision = location.partition("@")
        files = [
            snapshot(repo_id, revision or None, files=(MANIFEST, OUTCOMES_FILE)) / OUTCOMES_FILE
        ]
    for file in files:
        if file.is_file():
            if (file.parent / MANIFEST).is_file():
                verify_files(file.parent, [OUTCOMES_FILE])
            return file
    raise UserError(f"{location} contains no {OUTCOMES_FILE}; umls-reranker evaluate writes it")
