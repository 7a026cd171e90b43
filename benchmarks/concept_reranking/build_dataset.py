#!/usr/bin/env python
"""Build the dataset of candidate lists from the runs of three recipes, ready to push.

    python benchmarks/concept_reranking/build_dataset.py DATASET --medic medic_06Jul2012.txt

A run needs to have been made up to its lists: umls-reranker prepare_data RECIPE, train_encoder
RECIPE and build_index RECIPE, for ncbi-disease, bc5cdr-disease and hpo-minilm.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from complete import MEDIC, file_content, names_of, with_candidates, withheld

from umls_reranker.core.arrow_files import open_arrow
from umls_reranker.core.errors import UserError
from umls_reranker.core.files import written
from umls_reranker.core.json_files import read_json
from umls_reranker.core.stage import read_manifest
from umls_reranker.pipeline.run_folder import RunFolder
from umls_reranker.vocab.concept_table import ConceptTable

HERE = Path(__file__).resolve().parent
SPLITS = ("train", "calibration", "test")
# Stage of a run that is read -> the command that makes it.
MADE_BY = {"concepts": "prepare_data", "mentions": "prepare_data", "lists": "build_index"}
# Key of a task -> what it is.
FIGURES = {
    "acc_1": "share of mentions whose top candidate is a gold concept",
    "debiased_ece": "calibration error of the top candidates' probabilities, without its bias",
    "high_coverage": "share of mentions in a tier certified for 0.95 on the calibration split",
    "high_precision": "share of these whose top candidate is a gold concept",
}


class Configuration(NamedTuple):
    """Lists of one recipe.

    Attributes:
        run: the folder of its run, by default.
        is_of_medic: whether its names are MEDIC's, which are left out.
    """

    run: Path
    is_of_medic: bool


CONFIGURATIONS = {
    "ncbi_disease": Configuration(Path("runs/ncbi-disease"), is_of_medic=True),
    "bc5cdr_disease": Configuration(Path("runs/bc5cdr-disease"), is_of_medic=True),
    "hpo": Configuration(Path("runs/hpo-minilm"), is_of_medic=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder to write; must not exist")
    parser.add_argument("--medic", type=Path, required=True, help="MEDIC, plain or gzip")
    for name, configuration in CONFIGURATIONS.items():
        parser.add_argument(
            f"--{name}",
            type=Path,
            default=configuration.run,
            metavar="RUN",
            help="folder of the run (default: %(default)s)",
        )
    options = parser.parse_args()
    runs = {name: getattr(options, name) for name in CONFIGURATIONS}
    try:
        build(options.dataset, options.medic, runs)
    except UserError as error:
        parser.error(str(error))
    print(f"{options.dataset}: next, complete.py, or push.py --dry_run")


def build(dataset: Path, medic: Path, runs: dict[str, Path]) -> None:
    """Write the folder, from the run of each configuration.

    Raises:
        UserError: a folder exists, a run lacks its lists, or its dictionary is not the file.
    """
    if dataset.exists():
        raise UserError(f"{dataset} exists; choose another folder")
    if not medic.is_file():
        raise UserError(f"--medic: {medic} is no file; download {MEDIC}")
    names = names_of(file_content(medic).decode("utf-8"))
    dataset.parent.mkdir(parents=True, exist_ok=True)
    with written(dataset) as partial:
        partial.mkdir()
        facts = {}
        for name, run in runs.items():
            hidden_names = names if CONFIGURATIONS[name].is_of_medic else None
            facts[name] = write_configuration(partial / name, run, hidden_names)
        (partial / "README.md").write_text(card(facts), encoding="utf-8")
        (partial / "eval.yaml").write_text(eval_yaml(), encoding="utf-8")
        shutil.copyfile(HERE / "complete.py", partial / "complete.py")


def write_configuration(
    folder: Path, run: Path, hidden_names: dict[str, list[str]] | None
) -> dict[str, Any]:
    """Write the splits of a configuration; returns facts about them for the card.

    Args:
        folder: folder to make.
        run: folder of the run.
        hidden_names: names by concept that are left out; None: none is.
    """
    for stage, command in MADE_BY.items():
        RunFolder(run).key_of(stage, command)
    concepts = ConceptTable.load(run / "concepts")
    folder.mkdir()
    documents: dict[str, set[str]] = {}
    rows = []
    for split in SPLITS:
        table = split_table(run, split, concepts)
        if hidden_names is not None:
            table = without_names(table, hidden_names, concepts)
        pq.write_table(table, folder / f"{split}.parquet", compression="zstd")
        documents[split] = set(table["doc_id"].to_pylist())
        rows.append(split_facts(run, split, table, len(documents[split])))
    shared = documents["test"] & (documents["train"] | documents["calibration"])
    if shared:
        raise UserError(f"{run}: document {min(shared)} is in test and in another split")
    key = read_manifest(run / "lists")["key"]
    return {"splits": rows, "key": key, "test_files": test_files(run)}


def split_table(run: Path, split: str, concepts: ConceptTable) -> pa.Table:
    """The lists of a split, with what the dictionary knows about each candidate."""
    table = open_arrow(run / "lists" / f"{split}.arrow")
    candidates = pa.chunked_array(table["candidates"]).combine_chunks()
    structs = candidates.flatten()
    rows = concepts.rows(structs.field("cui"))
    fields = {field.name: structs.field(field.name) for field in structs.type}
    fields["preferred_name"] = concepts.column("name", rows)
    types = concepts.column("semantic_types", rows)
    if len(types.flatten()):
        fields["semantic_types"] = types
    lengths = pc.list_value_length(candidates).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)
    place = table.schema.get_field_index("candidates")
    return table.set_column(place, "candidates", lists).replace_schema_metadata(None)


def without_names(
    table: pa.Table, hidden_names: dict[str, list[str]], concepts: ConceptTable
) -> pa.Table:
    """The lists without the names of a dictionary.

    Raises:
        UserError: it is not the one of the run.
    """
    table = with_candidates(table, lambda one: withheld(one, hidden_names), has_numbers=True)
    for candidates in table["candidates"].to_pylist():
        for candidate in candidates:
            cui = candidate["cui"]
            if candidate["name"] is not None and cui in hidden_names:
                raise UserError(f"--medic: {cui} has no name {candidate['name']!r}; give the run's")
    return table


def split_facts(run: Path, split: str, table: pa.Table, documents: int) -> dict[str, Any]:
    """A row of the card's table; the recall is that of the lists stage."""
    summary = read_manifest(run / "lists")["summary"][split]
    return {
        "split": split,
        "mentions": len(table),
        "documents": documents,
        "recall": summary["retrieved"] / summary["mentions"],
    }


def test_files(run: Path) -> list[str]:
    """The files whose documents are the test split; none where it is a share of all."""
    files = read_json(run / "mentions" / "read_report.json").get("sha256", {})
    return [key.removeprefix("test_documents ") for key in files if key.startswith("test_")]


def card(facts: dict[str, Any]) -> str:
    """README.md of the dataset: metadata, and the template with tables of the splits."""
    metadata = yaml.safe_dump(metadata_of_card(), sort_keys=False)
    lines = [
        "| configuration | split | mentions | documents | gold in the list | test documents |",
        "|---|---|--:|--:|--:|---|",
    ]
    for name, configuration in facts.items():
        files = ", ".join(configuration["test_files"]) or "a share, by concept"
        for row in configuration["splits"]:
            of_split = files if row["split"] == "test" else ""
            lines.append(
                f"| {name} | {row['split']} | {row['mentions']:,} | {row['documents']:,} "
                f"| {row['recall']:.3f} | {of_split} |"
            )
    keys = [f"* `{name}`: lists `{each['key']}`" for name, each in facts.items()]
    text = (HERE / "card.md").read_text(encoding="utf-8")
    text = text.replace("{splits}", "\n".join(lines)).replace("{keys}", "\n".join(keys))
    return f"---\n{metadata}---\n\n{text}"


def metadata_of_card() -> dict[str, Any]:
    """The YAML block of the card."""
    configurations = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"{name}/{split}.parquet"} for split in SPLITS],
        }
        for name in CONFIGURATIONS
    ]
    return {
        "pretty_name": "Concept reranking",
        "language": ["en"],
        "license": "other",
        "license_name": "of-the-sources",
        "license_link": "README.md#sources-and-licences",
        "task_categories": ["text-ranking"],
        "tags": ["biomedical", "entity-linking", "calibration", "benchmark"],
        "configs": configurations,
    }


def eval_yaml() -> str:
    """eval.yaml: a task for each figure of each configuration."""
    tasks = [
        {"id": f"{name}_{figure}", "config": name, "split": "test"}
        for name in CONFIGURATIONS
        for figure in FIGURES
    ]
    meanings = [f"{figure}: {meaning}" for figure, meaning in FIGURES.items()]
    content = {
        "name": "Concept reranking",
        "description": "Which concept does a mention mean, and how much can be trusted? "
        + "; ".join(meanings),
        "tasks": tasks,
    }
    return yaml.safe_dump(content, sort_keys=False)


if __name__ == "__main__":
    main()
