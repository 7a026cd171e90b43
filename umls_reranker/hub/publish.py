"""Publishing a reranker: checked as a whole, one commit and one tag.

Only the card and the files in the model folder's manifest are published. A tag is never moved.
"""

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from ..core.errors import UserError
from ..core.locators import portable_locator
from ..models.hub_calls import SIGN_IN, hub_api, hub_calls, signed_in
from .card import folder_card
from .card_metadata import EVAL_RESULTS, official_results
from .file_names import CARD, MANIFEST, METRICS_FILE, MODEL_FILES, ONNX
from .former_card import with_former
from .manifest import verify_files, verify_model
from .model_download import REPO_ID
from .published_files import published_files

Operation = CommitOperationAdd | CommitOperationDelete


class Publication(NamedTuple):
    """A version as `publish` sent it, or would send it.

    Attributes:
        url: URL of the commit or pull request; in a dry run, of the repo.
        sizes: name of each file -> bytes.
        is_checked: whether the Hub was asked, which a dry run without a token does not do.
    """

    url: str
    sizes: dict[str, int]
    is_checked: bool = True


def publish(  # noqa: PLR0913 (options of the Hub, by their names there)
    folder: Path,
    repo_id: str,
    tag: str | None,
    *,
    private: bool = True,
    gated: str | None = None,
    branch: str = "main",
    create_pr: bool = False,
    commit_message: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Publication:
    """Publish a model folder as one commit on a branch, and a new tag on that commit.

    Of the card on the Hub, the text around the marks and the metadata that this package does not
    measure stay. All checks run before the first byte is sent. The commit is atomic, and the Hub
    refuses it if the branch has moved in the meantime. So a failed upload leaves all earlier
    versions unchanged, and the same command resumes it.

    Args:
        folder: model folder, checked by `verify_model`.
        repo_id: Hub repo, ``NAMESPACE/NAME``; created if it does not exist.
        tag: name of the version; an existing tag or branch of that name is never changed. None:
            there is no tag.
        private: make a new repo private, and refuse to publish to an existing one that is public.
        gated: whether access must be requested: ``auto``, ``manual`` (people approve) or ``False``.
            None: as before.
        branch: branch of the commit; a new one begins at ``main``.
        create_pr: open a pull request to ``main`` instead; the tag is only named on the card: make
            it after the merge.
        commit_message: title of the commit.
        token: Hub token with write access; None uses the environment or ``hf auth login``.
        dry_run: run all checks, with a token also on the Hub, and send nothing.

    Raises:
        UserError: the folder, names, tag or token are not acceptable, or the Hub cannot be reached.
    """
    if create_pr and branch != "main":
        raise UserError(
            f"branch: a pull request is to main, not to {branch}; leave out branch or create_pr"
        )
    contents = version_contents(Path(folder), repo_id, tag)
    url = portable_locator(f"{constants.ENDPOINT}/{repo_id}")
    if not signed_in(token):
        if dry_run:
            return Publication(url, _sizes(operations(contents)), is_checked=False)
        raise UserError(f"publishing to {repo_id} needs a token with write access; {SIGN_IN}")
    api = hub_api(token)
    with hub_calls(repo_id, token):
        head = _head(api, repo_id, tag, private, branch)
        changes = operations(contents, *_former(api, repo_id, head))
        if dry_run:
            return Publication(url, _sizes(changes))
        if head is None:
            api.create_repo(repo_id, private=private, exist_ok=True)
            head = _head(api, repo_id, tag, private, branch)
        if gated is not None:
            api.update_repo_settings(repo_id, gated=gated)  # type: ignore[arg-type]
        if branch != "main":
            api.create_branch(repo_id, branch=branch, revision=head, exist_ok=True)
    message = commit_message or f"Publish {tag or 'a version'}"
    unfinished = "; this version has no tag, and earlier versions are as they were"
    # Not upload_folder: with hf_xet it may split an upload into several commits.
    with hub_calls(repo_id, token, outcome=unfinished), warnings.catch_warnings():
        # The outcomes are data that belong to the model.
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
        commit = api.create_commit(
            repo_id,
            changes,
            commit_message=message,
            parent_commit=head,
            revision=branch,
            create_pr=create_pr,
        )
        if tag and not create_pr:
            api.create_tag(repo_id, tag=tag, tag_message=message, revision=commit.oid)
    return Publication(portable_locator(commit.pr_url or commit.commit_url), _sizes(changes))


def version_contents(folder: Path, repo_id: str, tag: str | None) -> dict[str, Path | bytes]:
    """What a version consists of, by name: the model's files, its card and results.

    Args:
        folder: as for `publish`.
        repo_id: as for `publish`; the card names it.
        tag: as for `publish`.

    Raises:
        UserError: the files are incomplete or do not belong together, or a name is not acceptable.
    """
    _check_names(repo_id, tag)
    # Files that the manifest lists but torch does not load may be missing.
    needed = [METRICS_FILE]
    if ONNX in verify_model(folder)["sha256"]:
        needed.append(ONNX)
    verify_files(folder, needed)
    card = folder_card(folder, repo_id, tag)
    contents = published_files(folder) | {CARD: card.text().encode()}
    results = official_results(card)
    if results is not None:
        contents[EVAL_RESULTS] = results.encode()
    return contents


def operations(
    contents: Mapping[str, Path | bytes], former: Collection[str] = (), card: str | None = None
) -> list[Operation]:
    """What the commit of a version does; nothing is sent.

    All files are added, and those of the former version that are gone are deleted: a plot of an
    earlier version must not remain next to the new files.

    Args:
        contents: the version (`version_contents`).
        former: names of the files on the branch.
        card: the card there, whose own text and metadata stay.

    Raises:
        UserError: the files on the branch are those of another kind of model, or the metadata of
            the card there cannot be read.
    """
    if MANIFEST not in former and not {*MODEL_FILES}.isdisjoint(former):
        raise UserError("the repo contains another kind of model; choose another repo")
    files = dict(sorted(contents.items()))
    if card is not None:
        files[CARD] = with_former(bytes(files[CARD]).decode(), card).encode()
    gone = {*former} & {*MODEL_FILES, EVAL_RESULTS} - contents.keys()
    return [
        *(CommitOperationAdd(name, data) for name, data in files.items()),
        *(CommitOperationDelete(name) for name in sorted(gone)),
    ]


def _former(api: HfApi, repo_id: str, head: str | None) -> tuple[list[str], str | None]:
    """Names of the files at a commit, and the card there; None: there is none."""
    names = [] if head is None else api.list_repo_files(repo_id, revision=head)
    if CARD not in names:
        return names, None
    return names, Path(api.hf_hub_download(repo_id, CARD, revision=head)).read_text("utf-8")


def _sizes(changes: Iterable[Operation]) -> dict[str, int]:
    """Bytes of each added file."""
    return {
        change.path_in_repo: change.upload_info.size
        for change in changes
        if isinstance(change, CommitOperationAdd)
    }


def _check_names(repo_id: str, tag: str | None) -> None:
    if not re.fullmatch(REPO_ID, repo_id):
        raise UserError(
            f"repo_id {repo_id!r} must have the form NAMESPACE/NAME, e.g. org/sapbert-umls-reranker"
        )
    # A safe subset of git-check-ref-format: git would refuse a bad tag only after the upload.
    if tag is not None and (
        not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", tag)
        or ".." in tag
        or tag.endswith(".lock")
        or re.fullmatch(r"main|[0-9a-f]{5,40}", tag)
    ):
        raise UserError(
            f"tag {tag!r} must be letters, digits, dots and dashes, not a branch or commit; "
            "e.g. v1.0.0"
        )


def _head(api: HfApi, repo_id: str, tag: str | None, private: bool, branch: str) -> str | None:
    """Head of the branch, or of ``main`` before there is one; None: the repo does not exist.

    Raises:
        UserError: publishing is not allowed.
    """
    if not api.repo_exists(repo_id):
        return None
    info = api.model_info(repo_id)
    refs = api.list_repo_refs(repo_id)
    if private and not info.private:
        raise UserError(
            f"{repo_id} is public, but private is true; set private: false to publish there"
        )
    for ref in (*refs.tags, *refs.branches):
        if ref.name == tag:
            raise UserError(
                f"{repo_id} already has {tag!r} ({ref.target_commit[:12]}), "
                "which stays; choose a new tag"
            )
    heads = {ref.name: ref.target_commit for ref in refs.branches}
    return heads.get(branch) or heads.get("main", info.sha)
