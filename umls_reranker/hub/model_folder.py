"""The model folder: where it is, its files, whether they belong together, how they are written.

A reranker is a cross-encoder, a calibrator fitted to its logits, thresholds on the calibrator's
probabilities, and a reference for monitoring; or the same without a cross-encoder, fitted to the
scores, names, types and counts of candidate lists alone. Files of different versions would silently
give wrong probabilities. So one manifest, ``sha256`` in ``reranker.json``, holds the SHA-256 of
every file and of the manifest's own settings. Before anything is loaded or published,
`verify_model` compares them. Code that changes a file uses `changing`, which renews the manifest.

It protects against mistakes, not against an attacker, who can also write a manifest.
"""

import difflib
import filecmp
import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os.path import expanduser
from pathlib import Path, PurePosixPath
from typing import Any

from ..calibration.calibration import Calibration
from ..calibration.decisions import SCHEMA_VERSION as THRESHOLDS_VERSION
from ..calibration.decisions import thresholds_content
from ..calibration.string_counts import COUNTS_FILE
from ..core.errors import UserError
from ..core.files import (
    FORMER,
    link_or_copy,
    mode_by_umask,
    partial_path,
    replace_folder,
    restore_folder,
    written,
)
from ..core.hashes import file_sha256, json_sha256
from ..core.json_files import read_json, require_format, write_json
from ..core.locators import portable_locator
from ..core.version import __version__
from ..evaluation.outcomes import OUTCOMES_FILE
from ..models.arguments import BACKENDS, BUILT_IN_FOLDERS, ENCODER
from ..models.pair_template import PairTemplate

MANIFEST = "reranker.json"
CARD = "README.md"
WEIGHTS = BACKENDS["torch"]
ONNX = BACKENDS["onnx"]
CALIBRATOR = "calibrator.json"
THRESHOLDS = "thresholds.json"
RECIPE = "recipe.yaml"
METRICS = "metrics.json"
REFERENCE = "reference.json"
RELIABILITY = "reliability.svg"
RISK_COVERAGE = "risk_coverage.svg"
# All files of a model folder except MANIFEST and CARD.
CROSS_ENCODER_FILES = (
    "config.json",
    WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
# What other libraries read of a cross-encoder. Text Embeddings Inference takes its length limit
# from there alone.
SENTENCE_CONFIG = "sentence_bert_config.json"
# A model may be copied without the last three.
EVALUATED = (METRICS, REFERENCE, OUTCOMES_FILE, RELIABILITY, RISK_COVERAGE)
# The commands that write files; ``calibrate`` writes all others.
MAKERS = {ONNX: "export"} | dict.fromkeys(EVALUATED, "evaluate")
MODEL_FILES = (
    *CROSS_ENCODER_FILES,
    SENTENCE_CONFIG,
    CALIBRATOR,
    COUNTS_FILE,
    THRESHOLDS,
    RECIPE,
    *EVALUATED,
    ONNX,
)

# What other libraries show and compute for the only logit.
LABEL = "gold concept"
SHOWN_CONFIG = {
    "id2label": {0: LABEL},
    "label2id": {LABEL: 0},
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
}

LFS_POINTER = b"version https://git-lfs"
SCHEMA_VERSIONS = {MANIFEST: 3, CALIBRATOR: 9, THRESHOLDS: THRESHOLDS_VERSION}


@dataclass(frozen=True)
class Origin:
    """What a model was made from.

    Attributes:
        recipe: text of its ``recipe.yaml``.
        base_model: folder or Hub id of the cross-encoder before training; None without one.
        base_revision: its commit; None if it is unknown.
        dictionary: release or ontologies of its concepts, for ``reranker.json``.
    """

    recipe: str
    base_model: str | None = None
    base_revision: str | None = None
    dictionary: dict[str, Any] | None = None


def loaded_files(backend: str) -> tuple[str, ...]:
    """Names of the files that a reranker loads with this backend.

    Raises:
        UserError: the backend is unknown.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend {backend!r} is unknown; choose from {', '.join(BACKENDS)}")
    left_out = {*EVALUATED[2:], *BACKENDS.values()} - {BACKENDS[backend]}
    return tuple(name for name in MODEL_FILES if name not in left_out)


def verify_model(folder: Path, backend: str | None = None) -> dict[str, Any]:
    """Check that a model folder is complete and that its files belong together.

    Args:
        folder: the model folder.
        backend: backend of the cross-encoder to load; the other is not read. None: torch, and all
            other files that exist.

    Returns:
        The content of ``reranker.json``.

    Raises:
        UserError: a file is missing, unreadable, of another format, not listed, or different from
            the listed one; or the backend is unknown.
    """
    folder = Path(folder)
    weights = BACKENDS.get(backend or "torch")
    needed = set(loaded_files(backend or "torch"))
    if not folder.is_dir():
        raise UserError(f"{folder} is not a model folder; umls-reranker calibrate writes one")
    info = _read_manifest(folder)
    present = {name for name in MODEL_FILES if (folder / name).is_file()}
    if backend and has_cross_encoder(info):
        present -= {*BACKENDS.values()} - {weights}
    listed = info["sha256"].keys()
    unlisted = present - listed
    if unlisted:
        path = folder / min(unlisted)
        raise UserError(
            f"{path} does not belong to this model: {MANIFEST} does not list it; remove it"
        )
    # The cross-encoder may have been left out or never exported.
    required = {weights} if has_cross_encoder(info) else set()
    verify_files(folder, sorted(required | ((needed | present) & listed)))
    for name in (CALIBRATOR, THRESHOLDS):
        require_format(folder / name, read_json(folder / name), SCHEMA_VERSIONS[name], "calibrate")
    return info


def verify_files(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Check some files against the manifest; returns the content of ``reranker.json``.

    Raises:
        UserError: one is missing or different from the listed one.
    """
    info = _read_manifest(folder)
    for name in names:
        path = folder / name
        maker = MAKERS.get(name, "calibrate")
        if not path.is_file():
            raise UserError(f"{path} is missing; umls-reranker {maker} writes it")
        if file_sha256(path) != info["sha256"].get(name):
            with path.open("rb") as stream:
                if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise UserError(
                        f"{path} is a Git LFS pointer, not the file; run `git lfs pull`"
                    )
            raise UserError(
                f"{path} does not match {MANIFEST}: it was modified or belongs to another version; "
                f"use all files from one revision, or run umls-reranker {maker} --overwrite"
            )
    return info


def has_cross_encoder(info: Mapping[str, Any]) -> bool:
    """Whether a model has a cross-encoder, by the content of its manifest."""
    return info["template"] is not None


def version_digits(info: Mapping[str, Any]) -> str:
    """Name of a version without a tag: the first digits of the manifest's hash."""
    return info["sha256"][MANIFEST][:12]


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder that belong to the model; only these are saved and published."""
    names = {MANIFEST, CARD, *_read_manifest(folder)["sha256"]} & {MANIFEST, CARD, *MODEL_FILES}
    return sorted(folder / name for name in names if (folder / name).is_file())


def published_files(folder: Path) -> dict[str, Path | bytes]:
    """The files to publish by name, without paths of this machine in recipe and manifest."""
    # Loading a model does not need it.
    import yaml

    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for path in model_files(folder)
    }
    recipe = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    portable = {key: _portable(value) for key, value in recipe.items()}
    if portable != recipe:
        info = _read_manifest(folder)
        text = yaml.safe_dump(portable, sort_keys=False, allow_unicode=True).encode()
        settings = info | {"base_model": _portable(info["base_model"])}
        sealed = _sealed(settings, info["sha256"] | {RECIPE: hashlib.sha256(text).hexdigest()})
        files[RECIPE] = text
        files[MANIFEST] = json.dumps(sealed, indent=2, ensure_ascii=False).encode()
    return files


def _portable(value: Any) -> Any:
    """A value of a recipe with only the last part of each path, and no passwords in URLs."""
    if isinstance(value, list):
        return [_portable(item) for item in value]
    return portable_locator(value) if isinstance(value, str) else value


def restored(folder: Path) -> Path:
    """The folder, which gets its name again if a killed process left it without."""
    folder = Path(folder).resolve()
    restore_folder(folder.with_name(f".{folder.name}{FORMER}"))
    return folder


@contextmanager
def changing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for new versions of some files or the card of `folder`.

    At the end they replace the former ones.

    A complete new folder, with links to the unchanged files, replaces the old one. A process killed
    at any moment leaves one of the two, the old one perhaps under a name that `restored` knows.
    """
    folder = restored(folder)
    info = _read_manifest(folder)
    new = partial_path(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()

    def keep(source: str, target: str) -> None:
        if not Path(target).exists():
            link_or_copy(source, target)

    try:
        yield new
        _write_manifest(new, info, info["sha256"])
        # The manifest lists all files except the card.
        names = [name for name in (MANIFEST, CARD) if (new / name).is_file()]
        if filecmp.cmpfiles(folder, new, names, shallow=False)[0] != names:
            shutil.copytree(folder, new, copy_function=keep, dirs_exist_ok=True)
            replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def save_copy(source: Path, folder: Path, backend: str = "torch") -> Path:
    """Write the files of a model folder to another folder, and return that folder.

    Files that do not belong to a reranker stay. Those of a former model are removed.

    Args:
        source: the model folder.
        folder: the other folder.
        backend: backend whose cross-encoder must exist; a download has only that one.

    Raises:
        UserError: the files do not belong together, the folder cannot be written, or it holds other
            files with the names of a model's.
    """
    verify_model(source, backend)
    files = {path.relative_to(source).as_posix(): path for path in model_files(source)}
    target = Path(expanduser(folder)).resolve()
    if target == source.resolve():
        return folder
    present = [name for name in MODEL_FILES if (target / name).exists()]
    if present and not (target / MANIFEST).is_file():
        raise UserError(
            f"{folder} contains {present[0]} of another kind of model; choose another folder"
        )
    try:
        for name in present:
            if name not in files:
                (target / name).unlink()
        # The manifest comes last and reveals an incomplete save.
        for name in [*(name for name in files if name != MANIFEST), MANIFEST]:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with written(target / name) as partial:
                shutil.copyfile(files[name], partial)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); choose another folder"
        ) from None
    return folder


def copy_cross_encoder(checkpoint: Path, folder: Path) -> None:
    """Copy only weights and tokenizer of a checkpoint, or of an encoder.

    `sentence_transformers.CrossEncoder` will predict logits with those of a cross-encoder.

    Raises:
        UserError: the checkpoint has no safetensors weights.
    """
    if not (checkpoint / WEIGHTS).is_file():
        raise UserError(
            f"{checkpoint} contains no {WEIGHTS}; run umls-reranker train with the same recipe"
        )
    for name in CROSS_ENCODER_FILES:
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)
    config = read_json(folder / "config.json")
    shown = {} if config.get("architectures") == ENCODER else SHOWN_CONFIG
    write_json(folder / "config.json", config | shown)
    path = folder / "tokenizer_config.json"
    if path.is_file():
        # Options of the process that saved a tokenizer, which transformers writes with it.
        options = ("local_files_only", "is_local")
        content = read_json(path)
        write_json(path, {key: content[key] for key in content if key not in options})


def write_model_files(
    folder: Path,
    origin: Origin,
    template: PairTemplate | None,
    dtype: str | None,
    calibration: Calibration,
    fitted_on: dict[str, Any],
) -> None:
    """Write calibrator.json with its counts, thresholds.json, recipe.yaml and reranker.json.

    Without a cross-encoder also a config.json, by which the Hub counts downloads; with one also
    `SENTENCE_CONFIG`.

    Args:
        folder: the model folder.
        origin: what the model was made from.
        template: how the cross-encoder reads a pair; None: the model has no cross-encoder.
        dtype: dtype of the logits that the calibrator was fitted on; None without a cross-encoder.
        calibration: the calibration.
        fitted_on: split and counts.
    """
    assert template or not calibration.uses_cross_encoder
    if calibration.models[0].fusion:
        calibration.counts.save(folder / COUNTS_FILE, calibration.training_counts)
    content = {"schema_version": SCHEMA_VERSIONS[CALIBRATOR], **calibration.to_dict()}
    write_json(folder / CALIBRATOR, content | {"fitted_on": fitted_on})
    tables = {model.name: model.thresholds for model in calibration.models}
    write_json(folder / THRESHOLDS, thresholds_content(tables))
    (folder / RECIPE).write_text(origin.recipe, encoding="utf-8")
    if template is None:
        # The Hub counts a model's downloads by requests for it.
        write_json(folder / "config.json", {"model_type": "umls_reranker"})
    elif read_json(folder / "config.json").get("architectures") != ENCODER:
        limits = {"max_seq_length": template.max_length, "do_lower_case": False}
        write_json(folder / SENTENCE_CONFIG, limits)
    base_model = origin.base_model if template else None
    base_revision = origin.base_revision if template else None
    settings = {
        "schema_version": SCHEMA_VERSIONS[MANIFEST],
        "template": template and asdict(template),
        "input": template and template.pair_text(),
        "base_model": base_model,
        "base_revision": base_revision,
        "umls_reranker_version": __version__,
        "dtype": dtype,
        "dictionary": origin.dictionary,
    }
    _write_manifest(folder, settings, {})


def _read_manifest(folder: Path) -> dict[str, Any]:
    info = read_json(folder / MANIFEST)
    require_format(folder / MANIFEST, info, SCHEMA_VERSIONS[MANIFEST], "calibrate")
    listed = info.get("sha256")
    if not isinstance(listed, dict) or info != _sealed(info, listed):
        raise UserError(
            f"{folder / MANIFEST} was modified after it was written, so the model cannot be "
            "trusted; use all files from one revision, or run umls-reranker calibrate --overwrite"
        )
    return info


def _write_manifest(folder: Path, settings: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Write ``reranker.json`` for the files in `folder` and other known ones."""
    present = {
        name: file_sha256(folder / name) for name in MODEL_FILES if (folder / name).is_file()
    }
    for name in present:
        mode_by_umask(folder / name)
    write_json(folder / MANIFEST, _sealed(settings, {**known, **present}))


def _sealed(settings: Mapping[str, Any], sha256: Mapping[str, str]) -> dict[str, Any]:
    """The content of ``reranker.json``, in which the hash of itself is that of everything else."""
    listed = {name: digest for name, digest in sorted(sha256.items()) if name != MANIFEST}
    return {**settings, "sha256": listed | {MANIFEST: json_sha256({**settings, "sha256": listed})}}


REPO_ID = r"\w[\w.-]*/\w[\w.-]*"


def local_folder(name: str | Path) -> Path:
    """The folder of this name, or else of the model in the package; it need not exist."""
    path = Path(expanduser(name))
    return path if path.is_dir() else BUILT_IN_FOLDERS.get(str(name), path)


def download(
    repo_or_path: str | Path,
    revision: str | None = None,
    backend: str = "torch",
    files: Sequence[str] | None = None,
    is_plain: bool = False,
    subfolder: str = "",
    **hub: Any,
) -> Path:
    """Folder of a reranker: a local one unchanged, or one snapshot of a Hub repo at one revision.

    Args:
        repo_or_path: local folder, Hub repo as ``NAMESPACE/NAME``, or a name of `BUILT_IN_FOLDERS`,
            unless a folder has this name.
        revision: tag, branch or commit on the Hub; None is the head of ``main``.
        backend: backend whose cross-encoder is downloaded, if the model has a cross-encoder.
        files: those to download, by default all that a reranker loads; a local folder stays whole.
        is_plain: whether a cross-encoder without calibration is accepted.
        subfolder: folder of the reranker in the folder or repo.
        hub: options of `huggingface_hub.snapshot_download`, such as ``token`` and ``cache_dir``.

    Raises:
        UserError: the folder, repo or revision does not exist, access is denied, or the Hub cannot
            be reached.
    """
    if not str(repo_or_path):
        raise UserError(
            "the model has no name; give a Hub repo or a folder ('.' for the working directory)"
        )
    path = local_folder(repo_or_path)
    if path.is_dir():
        path /= subfolder
        if (path / "model" / MANIFEST).is_file() and not (path / MANIFEST).is_file():
            raise UserError(f"{repo_or_path} is a run folder; use its model, {path / 'model'}")
        is_checkpoint = path.parent.name == "checkpoints"
        if is_checkpoint and not is_plain and not (path / MANIFEST).is_file():
            model = path.parent.parent / "model"
            raise UserError(
                f"{repo_or_path} is a checkpoint of a training, which is not calibrated; use the "
                f"model of its run, {model}, which umls-reranker calibrate writes"
            )
        if revision is not None:
            raise UserError(f"{repo_or_path} is not of the Hub, so it has no revision {revision!r}")
        return path
    if path.exists():
        raise UserError(f"{repo_or_path} is a file; give the folder of a model")
    names = files or (MANIFEST, *loaded_files(backend))
    return snapshot(str(repo_or_path), revision, names, is_plain, subfolder, **hub)


def snapshot(
    repo_id: str,
    revision: str | None,
    files: Sequence[str] = (MANIFEST,),
    is_plain: bool = False,
    subfolder: str = "",
    **hub: Any,
) -> Path:
    """Like `download`, of a Hub repo only."""
    if not re.fullmatch(REPO_ID, repo_id):
        near = difflib.get_close_matches(repo_id, BUILT_IN_FOLDERS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{repo_id} is neither a local folder nor a Hub repo of the form NAMESPACE/NAME{hint}"
        )

    # Importing the Hub's client takes as long as loading a model without a cross-encoder.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    from ..models.hub_calls import hub_api, hub_calls

    hub |= {"library_name": "umls_reranker", "library_version": __version__}
    hub["allow_patterns"] = [str(PurePosixPath(subfolder, name)) for name in files]
    token = hub.get("token")
    with hub_calls(repo_id, token):
        try:
            folder = Path(snapshot_download(repo_id, revision=revision, **hub), subfolder)
        except RevisionNotFoundError:
            tags = ", ".join(
                sorted(ref.name for ref in hub_api(token).list_repo_refs(repo_id).tags)
            )
            raise UserError(
                f"{repo_id} has no revision {revision!r}; its tags: {tags or 'none'}"
            ) from None
    if not is_plain and not (folder / MANIFEST).is_file():
        raise UserError(
            f"{repo_id} has no {MANIFEST} at {revision or 'main'}, "
            "so it is not a umls_reranker model"
        )
    return folder
