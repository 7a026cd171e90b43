"""The command that makes an index folder of a dictionary alone.

The stages are those of a run without mentions. They are made in a hidden folder beside the output,
so a killed command goes on with those that are finished.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import (
    portable_locator,
    require_writable,
)
from ..corpora.arguments import ConceptArguments
from ..retrieval.deployment import IndexSettings, export_index
from ..vocab.codes import CODES_FOLDER, write_codes
from ..vocab.concepts import ConceptTable
from ..vocab.types import TypeHierarchy
from .command import would_make
from .recipe import KEYS, Recipe, keys_of, pick
from .sources import dictionary_files, fingerprints, read_concepts
from .stages import (
    RunFolder,
    Stage,
    StageInputs,
    index_stages,
    planned_stages,
    read_manifest,
    should_run,
)

Files = Mapping[str, tuple[Path, ...]]
TEXT_RETRIEVERS = ["lexical", "forms"]


def index_dictionary(options: Mapping[str, Any]) -> None:
    """Make an index of a dictionary.

    Args:
        options: those of the command line, by name: ``dictionary``, ``output``, ``semantic_types``,
            ``encoder``, and recipe keys.

    Raises:
        UserError: the output exists, the dictionary cannot be read or nothing of it passes the
            filters, or the encoder cannot be opened.
    """
    output = options["output"]
    require_new(output)
    recipe = index_recipe(options)
    cache = Path(recipe.run.cache_dir)
    files = dictionary_files(recipe.concepts, cache, ("MRCUI", "MRREL"), ("MRCONSO",))
    if recipe.index.encoder:
        require_encoder(recipe)
    work = RunFolder(output.with_name(f".{output.name}.stages"))
    hashes = fingerprints(files, cache, printed=True)
    table = stage_table_of(recipe, options["codes"])
    stages = planned_stages(recipe, work.path, hashes, table=table)
    due = [stage for stage in stages.values() if should_run(stage, recipe.run)]
    if recipe.run.dry_run:
        would_make("index folder", output)
        return
    # Of a launch, the first process makes all but the vectors, which the others wait to share.
    is_main = os.environ.get("RANK", "0") == "0"
    if is_main and stages["concepts"] in due:
        with work.locked():
            make_dictionary(recipe, stages["concepts"], files)
    if is_main and CODES_FOLDER in stages and stages[CODES_FOLDER] in due:
        with work.locked():
            make_codes(work, stages[CODES_FOLDER], files, options["codes"])
    from .indexes import make_indexes

    make_indexes(
        recipe, work, [stage for stage in due if stage.name not in ("concepts", CODES_FOLDER)]
    )
    if is_main:
        settings = IndexSettings.load(work.path)
        settings.made_of = origin(recipe, options["dictionary"], hashes, work)
        if CODES_FOLDER in stages:
            settings.folders[CODES_FOLDER] = work.key_of(CODES_FOLDER, "index")
        settings.save(work.path)
        export_index(work.path, output)
        shutil.rmtree(work.path)
        show(output)


def make_dictionary(recipe: Recipe, stage: Stage, files: Files) -> None:
    """Write the concept folder: what an index keeps of its dictionary besides names to search."""
    from .data import make_concepts

    make_concepts(stage, read_concepts(recipe.concepts, files))


def make_codes(work: RunFolder, stage: Stage, files: Files, sources: Sequence[str]) -> None:
    """Write the codes that the concepts have in other vocabularies."""
    cuis = ConceptTable.load(work.path / "concepts").cuis
    with stage.writing() as (folder, summary):
        summary |= write_codes(folder, cuis, files, sources)
    print("codes: " + ", ".join(f"{source} {count:,}" for source, count in summary.items()))


def require_new(output: Path) -> None:
    """Refuse an output that exists or cannot be written."""
    if output.exists():
        raise UserError(f"{output} already exists; choose a new folder or remove it")
    require_writable(output)


def index_recipe(options: Mapping[str, Any]) -> Recipe:
    """The recipe that the command line stands for."""
    concepts = {"concept_source": "names", "names": options["dictionary"]}
    path = Path(expanduser(options["dictionary"]))
    if path.name.startswith("MRCONSO.RRF"):
        path = path.parent
    if path.is_dir():
        concepts = {"concept_source": "rrf", "umls_dir": str(path)}
    elif ".obo" in path.suffixes[-2:]:
        concepts = {"concept_source": "obo", "obo": [options["dictionary"]]}
    hierarchy = TypeHierarchy.built_in()
    types = [name for name in options["semantic_types"] if hierarchy.resolve(name)]
    encoder = options["encoder"]
    values = pick(options, KEYS) | concepts
    values |= {
        "concept_types": types,
        "semantic_groups": [name for name in options["semantic_types"] if name not in types],
        "encoder": encoder,
        "retrievers": [*(["dense"] if encoder else []), *TEXT_RETRIEVERS],
        "expand_abbreviations": True,
    }
    return Recipe.from_values(values)


def require_encoder(recipe: Recipe) -> None:
    """Refuse an encoder that cannot be reached, or reads only shorter names."""
    from .preflight import model_config

    index = recipe.index
    lengths = {"encoder_max_length": index.encoder_max_length}
    model_config("encoder", index.encoder, index.encoder_revision, lengths)


def stage_table_of(recipe: Recipe, sources: Sequence[str]) -> dict[str, StageInputs]:
    """The stages of an index without mentions; ids that are no CUIs are codes themselves."""
    concepts = recipe.concepts
    table = {"concepts": StageInputs("index", tuple(keys_of(ConceptArguments)))}
    if concepts.concept_source != "names" and not concepts.identifiers:
        values = {"sources": [*sources]}
        # No index reads it, so its codes do not change the key of an index.
        table[CODES_FOLDER] = StageInputs("index", needs=("concepts",), values=values)
    table |= index_stages(recipe)
    del table["lists"]
    return table


def origin(
    recipe: Recipe, dictionary: str, hashes: Mapping[str, str], work: RunFolder
) -> dict[str, Any]:
    """What an index is made of, for its settings."""
    concepts = recipe.concepts
    codes = {}
    if (work.path / CODES_FOLDER).is_dir():
        codes = read_manifest(work.path / CODES_FOLDER)["summary"]
    filters = ("sources", "languages", "identifiers", "concept_types", "semantic_groups")
    return {
        "dictionary": portable_locator(dictionary),
        "files": dict(hashes),
        "filters": {name: getattr(concepts, name) for name in filters},
        "read": read_manifest(work.path / "concepts")["summary"],
        "codes": codes,
    }


def show(output: Path) -> None:
    """Print what an index folder holds and how it is used."""
    settings = IndexSettings.load(output)
    read = settings.made_of["read"]
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(
        f"{output}: {read['concepts']:,} concepts, searched by {', '.join(settings.retrievers)}; "
        f"{size:,} bytes"
    )
