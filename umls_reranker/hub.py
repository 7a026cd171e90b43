"""The Hub repo of a reranker: checked as a whole, published as one commit and a tag, loaded as one snapshot.

A reranker is a model, a calibrator fitted to that model's logits and thresholds on the calibrator's probabilities;
parts of two versions together would give wrong probabilities without an error. So nothing is published or loaded
before `verify_parts` has seen that the parts belong together, a version gets its tag once and for all, and only text
and safetensors files travel.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .exported import EXPORTED_FILES, REGISTER, verify_exported
from .hub_errors import SIGN_IN, hub_calls, signed_in
from .resources import file_sha256
from .stages import read_json
from .version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["MODEL_FILES", "download", "model_files", "publish", "verify_parts"]

SCHEMA_VERSIONS = {"reranker.json": 1, "calibrator.json": 1, "thresholds.json": 2}
WEIGHTS = "model.safetensors"
COUNTS = "string_counts.safetensors"
OUTCOMES = "outcomes.parquet"

LOADED_FILES = (
    "config.json",
    WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "reranker.json",
    "calibrator.json",
    COUNTS,
    "thresholds.json",
    "recipe.yaml",
    "metrics.json",
    "reference.json",
)
BACKEND_FILES = (REGISTER, "calibrator_*.json", "thresholds_*.json")
MODEL_FILES = (
    *LOADED_FILES,
    *BACKEND_FILES,
    *(name for names in EXPORTED_FILES.values() for name in names),
    OUTCOMES,
    "README.md",
    "*.png",
)

# What a model folder must hold, and the script that puts it there.
NEEDED_TO_LOAD = dict.fromkeys(
    (
        "config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
        "reranker.json",
        "calibrator.json",
        "thresholds.json",
    ),
    "scripts/calibrate.py",
)
NEEDED_TO_PUBLISH = {"recipe.yaml": "scripts/calibrate.py", "metrics.json": "scripts/evaluate.py"}

REPO_ID = r"\w[\w.-]*/\w[\w.-]*"


def verify_parts(folder: Path, backend: str = "torch") -> dict[str, dict[str, Any]]:
    """Check that a model folder is complete and that its parts were made for each other.

    Args:
        folder: the model folder.
        backend: whose network is checked too, when it is an exported one.

    Returns:
        The content of ``reranker.json``, ``calibrator.json`` and ``thresholds.json`` by file name.

    Raises:
        UserError: a part is missing, unreadable, of a newer format, or made for other weights.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a model folder; scripts/calibrate.py makes one")
    _require(folder, NEEDED_TO_LOAD)
    parts = {name: _read_part(folder / name) for name in SCHEMA_VERSIONS}
    _check_header(folder / WEIGHTS)
    actual = file_sha256(folder / WEIGHTS)
    if parts["reranker.json"].get("weights_sha256") != actual:
        raise UserError(
            f"{folder / WEIGHTS} (sha256 {actual[:12]}) is not the file that reranker.json describes; "
            "it was changed or comes from another version, so take all parts from one revision"
        )
    if parts["calibrator.json"].get("weights_sha256") != actual:
        raise UserError(
            f"{folder / 'calibrator.json'} was fitted to other weights than {WEIGHTS} (sha256 {actual[:12]}); "
            "run scripts/calibrate.py again, or take all parts from one revision"
        )
    counts = parts["calibrator.json"].get("string_counts_sha256")
    if counts and (not (folder / COUNTS).is_file() or file_sha256(folder / COUNTS) != counts):
        raise UserError(
            f"{folder / COUNTS} is missing or not the file that calibrator.json was fitted with; "
            "run scripts/calibrate.py again, or take all parts from one revision"
        )
    if parts["thresholds.json"].get("calibrator_sha256") != file_sha256(folder / "calibrator.json"):
        raise UserError(
            f"{folder / 'thresholds.json'} was set for another calibrator.json than the one beside it; "
            "one of them was changed, so run scripts/calibrate.py again or take all parts from one revision"
        )
    if backend in EXPORTED_FILES:
        verify_exported(folder, backend, actual)
    return parts


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that belong to the model, by name; only they are saved and published."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return sorted(path for path in files if _matches(path.relative_to(folder).as_posix(), MODEL_FILES))


def download(
    repo_or_path: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    backend: str = "torch",
    files: Sequence[str] | None = None,
) -> Path:
    """Folder of a reranker: a local one as it is, else one snapshot of a Hub repo at one revision.

    Args:
        repo_or_path: local folder, or Hub repo as ``NAMESPACE/NAME``.
        revision: tag, branch or commit on the Hub; None is the head of ``main``.
        token: Hub token; None takes the one of the environment or of ``hf auth login``.
        cache_dir: the Hub cache, by default the one that all Hugging Face libraries share.
        backend: whose files are fetched too, when it is an exported one.
        files: what is taken from the Hub, by default all that a reranker loads; a local folder is given whole.

    Raises:
        UserError: no such folder, repo or revision, no access to it, or the Hub cannot be reached.
    """
    path = Path(repo_or_path).expanduser()
    if path.is_dir():
        if revision is not None:
            raise UserError(f"{repo_or_path} is a local folder, which has no revision {revision!r}; give only one")
        return path
    repo_id = str(repo_or_path)
    if not re.fullmatch(REPO_ID, repo_id):
        raise UserError(f"{repo_id} is neither a local folder nor a Hub repo written as NAMESPACE/NAME")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    with hub_calls(repo_id, token):
        try:
            snapshot = snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=list(files or (*LOADED_FILES, *BACKEND_FILES, *EXPORTED_FILES.get(backend, ()))),
                library_name="umls_reranker",
                library_version=__version__,
            )
        except RevisionNotFoundError:
            tags = ", ".join(sorted(ref.name for ref in _api(token).list_repo_refs(repo_id).tags))
            raise UserError(f"{repo_id} has no revision {revision!r}; its tags: {tags or 'none'}") from None
    folder = Path(snapshot)
    if not (folder / "reranker.json").is_file():
        raise UserError(f"{repo_id} has no reranker.json at {revision or 'main'}, so it is not a umls_reranker model")
    return folder


def publish(
    folder: Path,
    repo_id: str,
    tag: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str | None = None,
    card: str | None = None,
    force_worse: bool = False,
    dry_run: bool = False,
) -> str:
    """Publish a model folder as one commit on ``main`` and a new tag on that commit.

    Everything that can be refused is refused before the first byte is sent. The commit is all or nothing, and is
    refused by the Hub when ``main`` has moved since it was looked at, so an upload that breaks leaves every earlier
    version as it was; running the same command again goes on where it stopped.

    Args:
        folder: model folder, checked by `verify_parts`.
        repo_id: Hub repo, ``NAMESPACE/NAME``; made when it does not exist.
        tag: name of the version; an existing tag or branch of that name is never touched.
        private: make a new repo private, and refuse to publish to an existing one that is public.
        token: Hub token with write access; None takes the one of the environment or of ``hf auth login``.
        message: message of the commit.
        card: text of ``README.md``; None writes it for this repo and tag (`card.folder_card`).
        force_worse: publish even what is worse than what the repo holds (`versions.refuse_worse`).
        dry_run: make every check, on the Hub too, and send nothing.

    Returns:
        URL of the commit; in a dry run, of the repo.

    Raises:
        UserError: the folder, the names, the tag or the token will not do, the model is worse than what the repo
            holds, or the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants

    from .card import folder_card
    from .versions import refuse_worse

    folder = Path(folder)
    verify_parts(folder)
    _require(folder, NEEDED_TO_PUBLISH)
    _check_names(repo_id, tag)
    contents: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in model_files(folder)}
    contents["README.md"] = (card or folder_card(folder, repo_id, tag)).encode()
    if not signed_in(token):
        raise UserError(f"publishing to {repo_id} needs a token with write access; {SIGN_IN}")

    api = _api(token)
    with hub_calls(repo_id, token, publishing=True):
        head = _head(api, repo_id, tag, private)
        if head is not None and not force_worse and api.file_exists(repo_id, "reranker.json", revision=head):
            refuse_worse(folder, repo_id, head, token)
        if dry_run:
            return f"{constants.ENDPOINT}/{repo_id}"
        if head is None:
            api.create_repo(repo_id, private=private, exist_ok=True)
            head = _head(api, repo_id, tag, private)
        present = api.list_repo_files(repo_id, revision=head)

    operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
    # A plot or a vocabulary of an earlier version must not stay beside the new parts.
    stale = [name for name in present if _matches(name, MODEL_FILES) and name not in contents]
    operations += [CommitOperationDelete(name) for name in stale]

    message = message or f"Publish {tag}"
    unfinished = "; this version has no tag, and earlier versions are as they were"
    with hub_calls(repo_id, token, publishing=True, outcome=unfinished):
        # Not upload_folder: with hf_xet it may split one upload into several commits.
        with warnings.catch_warnings():
            # The outcomes are data, and meant to be beside the model.
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            commit = api.create_commit(repo_id, operations, commit_message=message, parent_commit=head)
        api.create_tag(repo_id, tag=tag, tag_message=message, revision=commit.oid, exist_ok=False)
    return commit.commit_url


def _require(folder: Path, needed: dict[str, str]) -> None:
    for name, script in needed.items():
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing; {script} makes it")


def _read_part(path: Path) -> dict[str, Any]:
    part = read_json(path)
    version = part.get("schema_version") if isinstance(part, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{path} has no schema_version, so it was not written by umls_reranker; make it again")
    if version > SCHEMA_VERSIONS[path.name]:
        raise UserError(
            f"{path} has schema_version {version}, newer than umls_reranker {__version__} can read; "
            "upgrade: pip install -U umls_reranker"
        )
    return part


def _check_header(weights: Path) -> None:
    from safetensors import SafetensorError, safe_open

    with weights.open("rb") as stream:
        if stream.read(8) == b"version ":
            raise UserError(f"{weights} is a Git LFS pointer, not the weights; run `git lfs pull`")
    try:
        with safe_open(weights, framework="numpy"):
            pass
    except SafetensorError as error:
        raise UserError(f"{weights} is damaged or cut short ({error}); make or download it again") from None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _check_names(repo_id: str, tag: str) -> None:
    if not re.fullmatch(REPO_ID, repo_id):
        raise UserError(f"repo_id {repo_id!r} must be written as NAMESPACE/NAME, e.g. org/sapbert-umls-reranker")
    # A safe part of what git allows (git-check-ref-format): a tag that git refused would surface after the upload.
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", tag) or ".." in tag or tag.endswith(".lock"):
        raise UserError(f"tag {tag!r} must be letters, digits, dots, dashes and underscores, e.g. v1.0.0")
    if re.fullmatch(r"[0-9a-f]{5,40}", tag):
        raise UserError(f"tag {tag!r} looks like a commit; choose a name such as v1.0.0")


def _api(token: str | bool | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="umls_reranker", library_version=__version__)


def _head(api: HfApi, repo_id: str, tag: str, private: bool) -> str | None:
    """Commit at the head of ``main``, or None when there is no such repo; refuses what must not be published."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        info = api.model_info(repo_id)
        refs = api.list_repo_refs(repo_id)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None
    if private and not info.private:
        raise UserError(f"{repo_id} is public but private is true; set private: false to publish there")
    for kind, names in (("tag", refs.tags), ("branch", refs.branches)):
        for ref in names:
            if ref.name == tag:
                raise UserError(
                    f"{repo_id} already has a {kind} {tag!r} (commit {ref.target_commit[:12]}), which is never "
                    "overwritten; choose a new tag"
                )
    return next((ref.target_commit for ref in refs.branches if ref.name == "main"), info.sha)
