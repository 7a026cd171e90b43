#!/usr/bin/env python
"""Check the folder that build_dataset.py wrote, list what would be sent, and push it as one commit.

    python benchmarks/concept_reranking/push.py DATASET ORG/NAME --dry_run

A dry run works offline and sends nothing. Otherwise it needs a token with write access (HF_TOKEN,
or `hf auth login`). A new repo is private.
"""

import argparse
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from build_dataset import CONFIGURATIONS, SPLITS
from complete import NUMBER, is_withheld
from huggingface_hub import CommitOperationAdd

from umls_reranker.core.errors import UserError
from umls_reranker.models.hub_calls import SIGN_IN, hub_api, hub_calls, signed_in

TEXTS = ("README.md", "eval.yaml", "complete.py")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder that build_dataset.py wrote")
    parser.add_argument("repo_id", help="dataset repo on the Hub, ORG/NAME")
    parser.add_argument("--dry_run", action="store_true", help="check and list, send nothing")
    options = parser.parse_args()
    try:
        files = checked_files(options.dataset)
        for name, path in files.items():
            print(f"{path.stat().st_size:>12,}  {name}")
        if options.dry_run:
            print(f"would be one commit to the dataset {options.repo_id}; nothing was sent")
            return
        print(push(files, options.repo_id))
    except UserError as error:
        parser.error(str(error))


def checked_files(dataset: Path) -> dict[str, Path]:
    """The files of a dataset, by their names in the repo; others beside them are not sent.

    Raises:
        UserError: a file is missing, names that may not be passed on are in one, or eval.yaml names
            a split that there is not.
    """
    tables = [f"{name}/{split}.parquet" for name in CONFIGURATIONS for split in SPLITS]
    files = {name: dataset / name for name in (*TEXTS, *tables)}
    for name, path in files.items():
        if not path.is_file():
            raise UserError(f"{path} is missing; build it with build_dataset.py")
        configuration = name.split("/")[0]
        if path.suffix == ".parquet" and CONFIGURATIONS[configuration].is_of_medic:
            refuse_names(path)
    tasks = yaml.safe_load(files["eval.yaml"].read_text(encoding="utf-8"))["tasks"]
    for task in tasks:
        if f"{task['config']}/{task['split']}.parquet" not in tables:
            raise UserError(f"eval.yaml: task {task['id']} is of a split that there is not")
    return files


def refuse_names(path: Path) -> None:
    """Refuse lists that have names of MEDIC.

    Raises:
        UserError: they have.
    """
    table = pq.read_table(path)
    if not is_withheld(table):
        raise UserError(
            f"{path} has the names of MEDIC; push what build_dataset.py wrote, not COMPLETE"
        )
    for row, candidates in enumerate(table["candidates"].to_pylist(), start=1):
        for candidate in candidates:
            if candidate[NUMBER] is not None and candidate["name"] is not None:
                raise UserError(f"{path}, row {row}: {candidate['cui']} has its name of MEDIC")


def push(files: dict[str, Path], repo_id: str) -> str:
    """Send the files as one commit to a dataset repo, made if missing; returns the commit's URL.

    Raises:
        UserError: there is no token, or the Hub refuses.
    """
    if not signed_in(None):
        raise UserError(f"pushing to {repo_id} needs a token with write access; {SIGN_IN}")
    api = hub_api(None)
    with hub_calls(repo_id):
        api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, path) for name, path in files.items()],
            commit_message="Candidate lists",
            repo_type="dataset",
        )
    return commit.commit_url


if __name__ == "__main__":
    main()
