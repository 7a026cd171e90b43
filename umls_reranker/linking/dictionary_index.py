"""An index folder of dictionaries alone: their concepts, the codes of these, and what finds them.

Nothing is trained, and without an encoder nothing imports torch. The folder appears only when it is
complete; until then it is made in a hidden one beside it. Of that a killed process leaves the
vectors, with which the same command goes on.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..core.arrays import started_processes
from ..core.files import (
    hold,
    json_sha256,
    naming_full_disk,
    portable_locator,
    read_json,
    require_new,
    write_json,
)
from ..corpora.arguments import ConceptArguments
from ..corpora.concepts_and_mentions import LEFT_OUT_FILE, join_sources, read_all_concepts
from ..models.model_files import model_identity
from ..retrieval.deployment import MANIFEST_FILE, IndexSettings, export_index
from ..retrieval.retrievers import IndexSources, chosen_retrievers, index_folders
from ..vocab.codes import CODES_FOLDER, write_codes
from ..vocab.concepts import ConceptTable

CONCEPTS = "concepts"
VECTORS = "vectors"
LOCK = ".lock"
# What decides which concepts are read of the files of a dictionary.
READING = (
    "concept_source",
    "languages",
    "sources",
    "identifiers",
    "concept_types",
    "semantic_groups",
    "obo_type_roots",
    "obo_synonym_scopes",
)
ENCODING = (
    "encoder",
    "encoder_revision",
    "encoder_pooling",
    "encoder_max_length",
    "encoder_dtype",
)
# Folder -> its content, by which it is known: settings, and keys or hashes of what it is made from.
Manifests = dict[str, dict[str, Any]]


class Dictionary(NamedTuple):
    """A source of concepts.

    Attributes:
        name: its path or URL, as the user wrote it.
        settings: its kind, and which of its concepts are read; types and added names are those of
            the first.
        files: name -> paths of each of its files.
        sha256: name, numbered if there are several files, -> fingerprint.
    """

    name: str
    settings: ConceptArguments
    files: Mapping[str, tuple[Path, ...]]
    sha256: Mapping[str, str]

    @property
    def manifest(self) -> dict[str, Any]:
        """What its concepts are made of."""
        return _manifest(
            CONCEPTS, {name: getattr(self.settings, name) for name in READING}, self.sha256
        )

    @property
    def has_codes(self) -> bool:
        """Whether it says what its concepts are in other vocabularies; other ids are codes."""
        return self.settings.concept_source != "names" and not self.settings.identifiers


def planned_folders(
    dictionaries: Sequence[Dictionary],
    settings: IndexSettings,
    sources: Sequence[str],
    cache: Path,
) -> Manifests:
    """The folders of an index, in the order in which they are made, and what each is made of.

    An index of the same files and settings has the same key, by which a calibrated model knows it.

    Args:
        dictionaries: the dictionaries.
        settings: how names are encoded and indexed.
        sources: vocabularies whose codes are kept; empty: the usual ones.
        cache: folder in which the hashes of unchanged files are remembered.
    """
    parts = [dictionary.manifest for dictionary in dictionaries]
    keys = {f"dictionary {number}": part["key"] for number, part in enumerate(parts, start=1)}
    concepts = parts[0] if len(parts) == 1 else _manifest(CONCEPTS, {}, keys)
    manifests = {CONCEPTS: concepts}
    of_concepts = {CONCEPTS: concepts["key"]}
    if any(dictionary.has_codes for dictionary in dictionaries):
        # No index reads it, so its codes do not change the key of an index.
        manifests[CODES_FOLDER] = _manifest(CODES_FOLDER, {"sources": [*sources]}, of_concepts)
    if settings.encoder:
        values = {name: getattr(settings, name) for name in ENCODING}
        values["encoder"] = model_identity(settings.encoder, cache)
        manifests[VECTORS] = _manifest(VECTORS, values, of_concepts, version=2)
    for retriever in chosen_retrievers(settings.retrievers):
        if retriever.folder is not None:
            values = {name: getattr(settings, name) for name in retriever.keys}
            inputs = {
                name: manifests[name]["key"] for name in retriever.inputs if name in manifests
            }
            manifests[retriever.folder] = _manifest(
                retriever.folder, {**values, **retriever.values}, inputs
            )
    return manifests


def _manifest(
    name: str, settings: Mapping[str, Any], inputs: Mapping[str, str], version: int = 1
) -> dict[str, Any]:
    content = {"stage": name, "version": version, "settings": settings, "inputs": inputs}
    return {"schema_version": 2, **content, "key": json_sha256(content)}


def make_index(
    dictionaries: Sequence[Dictionary],
    output: Path,
    settings: IndexSettings,
    manifests: Manifests,
    sources: Sequence[str] = (),
    device: str = "auto",
) -> None:
    """Make an index folder; the processes of a launch share the encoding of names.

    Args:
        dictionaries: the dictionaries; concepts with the same id are joined, and the preferred name
            and types of the first count.
        output: folder to make.
        settings: how names are encoded and indexed; it gets what the folder is made of.
        manifests: the folders (`planned_folders`).
        sources: as for `planned_folders`.
        device: of the encoder, as for `BiEncoder.from_pretrained`.

    Raises:
        UserError: the output exists or is being made, a dictionary cannot be read, nothing passes
            the filters, no concept has a code of a vocabulary, or the encoder cannot be loaded.
    """
    state: Any = None
    if settings.encoder or started_processes() > 1:
        from ..core.devices import goes_on_alone, sharing_processes

        state = sharing_processes(device)
    is_main = state is None or state.is_main_process
    counts = {}
    with _work_folder(output, manifests, is_main) as work:
        if is_main:
            counts[CONCEPTS] = _make_concepts(dictionaries, work / CONCEPTS)
            _show_added(counts[CONCEPTS], output)
            if CODES_FOLDER in manifests:
                cuis = ConceptTable.load(work / CONCEPTS).cuis
                files = [dictionary.files for dictionary in dictionaries if dictionary.has_codes]
                counts[CODES_FOLDER] = write_codes(work / CODES_FOLDER, cuis, files, sources)
                _show(CODES_FOLDER, counts[CODES_FOLDER])
        if VECTORS in manifests:
            from ..retrieval.name_index import encode_names

            if is_main:
                (work / VECTORS).mkdir(exist_ok=True)
                write_json(work / VECTORS / MANIFEST_FILE, manifests[VECTORS])
            encode_names(work, work / VECTORS, settings, device, state)
        if state is not None and not goes_on_alone(state):
            return
        indexes = IndexSources(work, settings, device)
        for retriever in chosen_retrievers(settings.retrievers):
            if name := retriever.folder:
                (work / name).mkdir()
                counts[name] = retriever.build(indexes, work / name)
                _show(name, counts[name])
        for name, summary in counts.items():
            write_json(work / name / MANIFEST_FILE, manifests[name] | {"summary": summary})
        settings.folders = {name: manifests[name]["key"] for name in counts}
        settings.index_key = json_sha256(
            {name: settings.folders[name] for name in index_folders(settings.retrievers)}
        )
        origins = [
            {"name": portable_locator(dictionary.name)} | dictionary.manifest
            for dictionary in dictionaries
        ]
        settings.made_of = {"dictionaries": origins, "read": counts}
        settings.save(work)
        export_index(work, output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(
        f"{output}: {counts[CONCEPTS]['concepts']:,} concepts, "
        f"searched by {', '.join(settings.retrievers)}; {size:,} bytes"
    )


@contextmanager
def _work_folder(output: Path, manifests: Manifests, is_main: bool) -> Iterator[Path]:
    """The hidden folder beside the output, which one process at a time may write into.

    Of what a killed one left there, only vectors stay, if they are those to make.
    """
    work = output.with_name(f".{output.name}.index")
    if not is_main:
        yield work
        return
    require_new(output)
    work.mkdir(exist_ok=True)
    vectors = work / VECTORS / MANIFEST_FILE
    with hold(work / LOCK, f"another process makes {output}; wait for it or choose another output"):
        try:
            # Another process may have made it in the meantime.
            require_new(output)
            retained = {LOCK}
            key = manifests[VECTORS]["key"] if VECTORS in manifests else None
            if vectors.is_file() and read_json(vectors)["key"] == key:
                retained.add(VECTORS)
                print(f"[{VECTORS}] resuming an interrupted command", file=sys.stderr)
            for path in work.iterdir():
                if path.name in retained:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            with naming_full_disk(work):
                yield work
        finally:
            if output.exists() or not vectors.is_file():
                shutil.rmtree(work, ignore_errors=True)


def _make_concepts(dictionaries: Sequence[Dictionary], folder: Path) -> dict[str, Any]:
    source = join_sources([read_all_concepts(each.settings, each.files) for each in dictionaries])
    if len(dictionaries) > 1:
        print(
            f"{source.report['joined_concepts']:,} concepts are in an earlier dictionary too, "
            f"{source.report['repeated_names']:,} names are repeated"
        )
    source = source.with_names(dictionaries[0].files.get("add_names", ()))
    return source.of_types(dictionaries[0].settings).write(folder)


def _show_added(report: Mapping[str, Any], output: Path) -> None:
    """What became of names that were to be added."""
    if "added_names" in report:
        print(f"{report['added_names']:,} names added")
        for reason, count in report["left_out_names"].items():
            print(f"{count:,} left out: {reason} ({output / CONCEPTS / LEFT_OUT_FILE})")


def _show(name: str, counts: Mapping[str, int]) -> None:
    print(f"{name}: " + ", ".join(f"{each} {count:,}" for each, count in counts.items()))
