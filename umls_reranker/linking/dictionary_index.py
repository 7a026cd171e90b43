"""An index folder of dictionaries alone: their concepts, the codes of these, and what finds them.

Nothing is trained, and without an encoder nothing imports torch. The folder appears only when it is
complete; until then its stages are made in a hidden one beside it. Of that a killed process leaves
the stages that it finished and the vectors, with which the same command goes on.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..core.files import hold, naming_full_disk, remove, require_new
from ..core.locators import portable_locator
from ..core.parallel import started_processes
from ..core.stage import Stage, StageInputs, read_manifest
from ..corpora.arguments import ConceptArguments
from ..corpora.dictionaries import LEFT_OUT_FILE, join_sources, read_all_concepts
from ..retrieval.build import (
    VECTORS,
    build_indexes,
    counts_line,
    planned_indexes,
    save_settings,
)
from ..retrieval.deployment import export_index
from ..retrieval.index_settings import IndexSettings
from ..vocab.codes import CODES_FOLDER, write_codes
from ..vocab.concept_table import ConceptTable

CONCEPTS = "concepts"
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
OF_DICTIONARY = StageInputs("index", READING)


class DictionarySource(NamedTuple):
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

    def stage(self, folder: Path) -> Stage:
        """The stage that makes a folder of its concepts."""
        return OF_DICTIONARY.stage(folder, vars(self.settings), self.sha256)

    @property
    def has_codes(self) -> bool:
        """Whether it says what its concepts are in other vocabularies; other ids are codes."""
        return self.settings.concept_source != "names" and not self.settings.identifiers


def planned_stages(
    dictionaries: Sequence[DictionarySource],
    output: Path,
    settings: IndexSettings,
    sources: Sequence[str],
    cache: Path,
) -> dict[str, Stage]:
    """The stages of an index by name, in order, in the hidden folder where they are made.

    An index of the same files and settings has the same key, by which a calibrated model knows it.

    Args:
        dictionaries: the dictionaries.
        output: the index folder to make.
        settings: how names are encoded and indexed.
        sources: vocabularies whose codes are kept; empty: the usual ones.
        cache: folder in which the hashes of unchanged files are remembered.
    """
    work = output.with_name(f".{output.name}.index")
    parts = [dictionary.stage(work / CONCEPTS) for dictionary in dictionaries]
    concepts = parts[0]
    if len(parts) > 1:
        keys = {f"dictionary {number}": part.key for number, part in enumerate(parts, start=1)}
        concepts = Stage(work / CONCEPTS, {}, keys)
    stages = {CONCEPTS: concepts}
    if any(dictionary.has_codes for dictionary in dictionaries):
        # No index reads it, so its codes do not change the key of an index.
        of_concepts = {CONCEPTS: concepts.key}
        stages[CODES_FOLDER] = Stage(work / CODES_FOLDER, {"sources": [*sources]}, of_concepts)
    return stages | planned_indexes(work, settings, concepts, cache)


def make_index(
    dictionaries: Sequence[DictionarySource],
    output: Path,
    settings: IndexSettings,
    stages: Mapping[str, Stage],
    sources: Sequence[str] = (),
    device: str = "auto",
) -> None:
    """Make an index folder; the processes of a launch share the encoding of names.

    Args:
        dictionaries: the dictionaries; concepts with the same id are joined, and the preferred name
            and types of the first count.
        output: folder to make.
        settings: how names are encoded and indexed; it gets what the folder is made of.
        stages: its stages (`planned_stages`).
        sources: as for `planned_stages`.
        device: of the encoder, as for `BiEncoder.from_pretrained`.

    Raises:
        UserError: the output exists or is being made, a dictionary cannot be read, nothing passes
            the filters, no concept has a code of a vocabulary, or the encoder cannot be loaded.
    """
    due = {name: stage for name, stage in stages.items() if not stage.is_done()}
    state: Any = None
    if settings.encoder or started_processes() > 1:
        from ..core.devices import sharing_processes

        state = sharing_processes(device)
    is_main = state is None or state.is_main_process
    with _work_folder(output, stages, is_main) as work:
        if is_main:
            _make_concepts(dictionaries, due, work, output)
            _make_codes(dictionaries, due, work, sources)
        if not build_indexes(work, settings, due, device, state):
            return
        read = {name: read_manifest(work / name)["summary"] for name in stages if name != VECTORS}
        origins = [
            {"name": portable_locator(dictionary.name)} | dictionary.stage(work / CONCEPTS).manifest
            for dictionary in dictionaries
        ]
        settings.made_of = {"dictionaries": origins, "read": read}
        save_settings(settings, work, [name for name in (CONCEPTS, CODES_FOLDER) if name in stages])
        export_index(work, output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(
        f"{output}: {read[CONCEPTS]['concepts']:,} concepts, "
        f"searched by {', '.join(settings.retrievers)}; {size:,} bytes"
    )


@contextmanager
def _work_folder(output: Path, stages: Mapping[str, Stage], is_main: bool) -> Iterator[Path]:
    """The hidden folder beside the output, which one process at a time may write into.

    What a killed process left there of other stages goes. An error leaves the folder only if names
    are being encoded or were, which is what takes long.
    """
    work = stages[CONCEPTS].folder.parent
    if not is_main:
        yield work
        return
    require_new(output)
    work.mkdir(exist_ok=True)
    with hold(work / LOCK, f"another process makes {output}; wait for it or choose another output"):
        try:
            # Another process may have made it in the meantime.
            require_new(output)
            _remove_others(work, stages)
            with naming_full_disk(work):
                yield work
        finally:
            vectors = stages.get(VECTORS)
            has_vectors = vectors is not None and (vectors.is_done() or vectors.partial.is_dir())
            if output.exists() or not has_vectors:
                remove(work)


def _remove_others(work: Path, stages: Mapping[str, Stage]) -> None:
    """Remove all from the hidden folder but what these stages go on from."""
    retained = {LOCK}
    for stage in stages.values():
        if stage.is_done():
            retained.add(stage.folder.name)
        if stage.resumes:
            retained.add(stage.partial.name)
    for path in work.iterdir():
        if path.name not in retained:
            remove(path)
    if VECTORS in stages and (stages[VECTORS].partial.is_dir() or stages[VECTORS].is_done()):
        print(f"[{VECTORS}] resuming an interrupted command", file=sys.stderr)


def _make_concepts(
    dictionaries: Sequence[DictionarySource], due: Mapping[str, Stage], work: Path, output: Path
) -> None:
    """Read the concepts of the dictionaries, if they are due, and say what became of added names.

    Args:
        dictionaries: the dictionaries.
        due: the stages that are to be made.
        work: the hidden folder.
        output: the index folder that it will be.
    """
    if CONCEPTS in due:
        with due[CONCEPTS].writing() as (folder, summary):
            summary |= _write_concepts(dictionaries, folder)
    report = read_manifest(work / CONCEPTS)["summary"]
    if "added_names" in report:
        print(f"{report['added_names']:,} names added")
        for reason, count in report["left_out_names"].items():
            print(f"{count:,} left out: {reason} ({output / CONCEPTS / LEFT_OUT_FILE})")


def _make_codes(
    dictionaries: Sequence[DictionarySource],
    due: Mapping[str, Stage],
    work: Path,
    sources: Sequence[str],
) -> None:
    """Write what the concepts are in other vocabularies, if that is due."""
    if CODES_FOLDER not in due:
        return
    cuis = ConceptTable.load(work / CONCEPTS).cuis
    files = [dictionary.files for dictionary in dictionaries if dictionary.has_codes]
    with due[CODES_FOLDER].writing() as (folder, summary):
        summary |= write_codes(folder, cuis, files, sources)
    print(counts_line(CODES_FOLDER, summary))


def _write_concepts(dictionaries: Sequence[DictionarySource], folder: Path) -> dict[str, Any]:
    source = join_sources([read_all_concepts(each.settings, each.files) for each in dictionaries])
    if len(dictionaries) > 1:
        print(
            f"{source.report['joined_concepts']:,} concepts are in an earlier dictionary too, "
            f"{source.report['repeated_names']:,} names are repeated"
        )
    source = source.with_names(dictionaries[0].files.get("add_names", ()))
    return source.of_types(dictionaries[0].settings).write(folder)
