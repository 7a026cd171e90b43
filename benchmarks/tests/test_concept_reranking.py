"""The dataset of candidate lists: names that stay out and come back, and systems that enter."""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

sys.path.append(str(Path(__file__).parents[1] / "concept_reranking"))
sys.path.append(str(Path(__file__).parents[1] / "concept_reranking" / "systems"))

import bm25
import build_dataset
import complete
import push
import score

from umls_reranker.core.arrow_files import arrow_writer
from umls_reranker.core.errors import UserError
from umls_reranker.vocab.concept_folder import write_concepts
from umls_reranker.vocab.concepts import Concept, concept_table
from umls_reranker.vocab.types import TypeHierarchy

HERE = Path(score.__file__).parent
WORDS = ("fever", "cough", "rash", "itch", "ache", "chill", "cramp", "sneeze")
# Documents of each split.
DOCUMENTS = {"train": 20, "calibration": 60, "test": 30}
MENTIONS_OF_DOCUMENT = 2
# A concept that training mentions brought to the dictionary.
BROUGHT = "D999999"


def lines_of_medic():
    return [f"D{n:06}||secret {word}|hidden {word} disease" for n, word in enumerate(WORDS)]


def write_medic(folder):
    path = folder / "medic.txt"
    path.write_text("\n".join(lines_of_medic()) + "\n")
    return path


def candidate(number, rank, split):
    """A candidate with its second name, or the concept that mentions brought."""
    cui = f"D{number:06}"
    name = f"hidden {WORDS[number]} disease"
    # So all names of the split train are MEDIC's.
    if rank == 2 and split != "train":
        cui = BROUGHT
        name = "unknown"
    return {"cui": cui, "name": name, "retrieval_score": 1 - rank / 10}


def rows_of(split, rng):
    rows = []
    for document in range(DOCUMENTS[split]):
        for place in range(MENTIONS_OF_DOCUMENT):
            gold, other = rng.choice(len(WORDS), 2, replace=False)
            ranked = [gold, other, 0]
            if rng.random() < 0.3:
                ranked = [other, gold, 0]
            rows.append(
                {
                    "mention_id": place,
                    "doc_id": f"{split}-{document}",
                    "start": 10 * place,
                    "end": 10 * place + 5,
                    "entity": WORDS[gold],
                    "left": "with ",
                    "right": ".",
                    "cui": [[f"D{gold:06}"]],
                    "entity_type": [],
                    "index_key": "key",
                    "candidates": [candidate(n, rank, split) for rank, n in enumerate(ranked)],
                }
            )
    return rows


def write_run(folder):
    """The stages of a run that the dataset is built from."""
    concepts = [
        Concept(line.split("||")[0], *line.split("||")[1].split("|")[:1], line.split("|")[3:])
        for line in lines_of_medic()
    ]
    concepts.append(Concept(BROUGHT, "unknown"))
    write_concepts(concept_table(concepts), TypeHierarchy([]), folder / "concepts")
    rng = np.random.default_rng(13)
    summary = {}
    (folder / "lists").mkdir(parents=True)
    (folder / "mentions").mkdir()
    for split in build_dataset.SPLITS:
        rows = rows_of(split, rng)
        table = pa.Table.from_pylist(rows)
        with arrow_writer(folder / "lists" / f"{split}.arrow", table.schema) as writer:
            writer.write(table)
        summary[split] = {"mentions": len(rows), "retrieved": len(rows)}
    report = {"sha256": {"test_documents CDR_DevelopmentSet.txt": ""}}
    (folder / "mentions" / "read_report.json").write_text(json.dumps(report))
    for stage in ("concepts", "mentions", "lists"):
        manifest = {"schema_version": 2, "stage": stage, "key": "0" * 8, "summary": summary}
        manifest |= {"settings": {}, "inputs": {}}
        (folder / stage / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Run, MEDIC, dataset and complete dataset."""
    folder = tmp_path_factory.mktemp("benchmark")
    run = write_run(folder / "run")
    medic = write_medic(folder)
    build_dataset.build(folder / "dataset", medic, dict.fromkeys(build_dataset.CONFIGURATIONS, run))
    with pytest.MonkeyPatch.context() as patch:
        sha256 = hashlib.sha256(medic.read_bytes()).hexdigest()
        patch.setattr(complete, "MEDIC_SHA256", sha256)
        complete.complete(folder / "dataset", medic, folder / "complete")
    return folder


def rows_at(path):
    return pq.read_table(path).to_pylist()


def test_names_of_medic_stay_out_and_come_back(built):
    hidden = rows_at(built / "dataset" / "ncbi_disease" / "test.parquet")
    names = {one["name"] for row in hidden for one in row["candidates"]}
    assert names == {None, "unknown"}
    whole = rows_at(built / "complete" / "ncbi_disease" / "test.parquet")
    assert whole == rows_at(built / "dataset" / "hpo" / "test.parquet")
    first = whole[0]["candidates"][0]
    assert first["name"].startswith("hidden ") and first["preferred_name"].startswith("secret ")


def test_the_folder_is_a_dataset_whose_tasks_are_its_splits(built):
    dataset = built / "dataset"
    card = (dataset / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    configurations = [each["config_name"] for each in metadata["configs"]]
    assert configurations == [*build_dataset.CONFIGURATIONS]
    assert "CDR_DevelopmentSet.txt" in card and "{" not in card.split("---", 2)[2]
    sizes = {split: MENTIONS_OF_DOCUMENT * count for split, count in DOCUMENTS.items()}
    for name in build_dataset.CONFIGURATIONS:
        loaded = load_dataset(str(dataset), name, cache_dir=str(built / "cache"))
        assert loaded.num_rows == sizes
    tasks = yaml.safe_load((dataset / "eval.yaml").read_text())["tasks"]
    assert len({task["id"] for task in tasks}) == len(tasks) == 12
    assert {(task["config"], task["split"]) for task in tasks} == {
        (name, "test") for name in build_dataset.CONFIGURATIONS
    }


def test_a_run_that_does_not_fit_is_refused(built, tmp_path):
    medic = tmp_path / "medic.txt"
    medic.write_text((built / "medic.txt").read_text().replace("hidden fever", "other fever"))
    run = built / "run"
    with pytest.raises(UserError, match="D000000"):
        build_dataset.build(tmp_path / "other", medic, {"ncbi_disease": run})
    with pytest.raises(UserError, match="concepts"):
        build_dataset.build(tmp_path / "none", built / "medic.txt", {"hpo": tmp_path})
    twice = write_run(tmp_path / "run")
    (twice / "lists" / "test.arrow").write_bytes((twice / "lists" / "train.arrow").read_bytes())
    with pytest.raises(UserError, match="train-0"):
        build_dataset.build(tmp_path / "twice", built / "medic.txt", {"hpo": twice})
    assert not any((tmp_path / name).exists() for name in ("other", "none", "twice"))


def test_another_edition_of_medic_is_refused(built, tmp_path):
    with pytest.raises(ValueError, match=r"medic\.txt"):
        complete.complete(built / "dataset", built / "medic.txt", tmp_path / "complete")


def test_what_is_pushed_has_no_name_of_medic(built, tmp_path):
    dataset = tmp_path / "dataset"
    build_dataset.build(
        dataset, built / "medic.txt", dict.fromkeys(build_dataset.CONFIGURATIONS, built / "run")
    )
    files = push.checked_files(dataset)
    assert len(files) == len(push.TEXTS) + len(build_dataset.CONFIGURATIONS) * len(
        build_dataset.SPLITS
    )
    named = built / "complete" / "bc5cdr_disease" / "test.parquet"
    target = dataset / "bc5cdr_disease" / "test.parquet"
    target.write_bytes(named.read_bytes())
    with pytest.raises(UserError, match=re.escape(str(target))):
        push.checked_files(dataset)


def test_the_system_of_the_page_enters(built, tmp_path):
    page = (HERE / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 20
    system = tmp_path / "shared_letters.py"
    system.write_text(code)
    figures = score.figures_of(built / "complete" / "hpo", str(system), tmp_path / "results")
    assert figures["acc@1"]["value"] == 1
    assert json.loads((tmp_path / "results" / "shared_letters.json").read_text()) == figures
    order = score.figures_of(built / "complete" / "hpo", "retriever_order", tmp_path / "results")
    assert 0.5 < order["acc@1"]["value"] < 0.9
    table = score.table_of({"mine": figures, "order": order})
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["mine", "order"]


def test_a_model_enters_as_it_is_or_calibrated_on_the_calibration_split(built):
    folder = built / "complete" / "hpo"
    figures = score.measure(folder, "built-in-fast")
    assert [*figures] == [*score.COLUMNS]
    assert figures["acc@1"]["n"] == MENTIONS_OF_DOCUMENT * DOCUMENTS["test"]


def test_a_system_sees_no_gold_concept_and_ties_are_in_order_of_ids(built):
    seen = []

    def scorer(rows):
        seen.extend(rows)
        return [[1.0] * len(row["candidates"]) for row in rows]

    lists = score.scored_lists(built / "complete" / "hpo" / "test.parquet", scorer)
    assert seen and not any(score.GOLD in row for row in seen)
    cuis = np.array(lists.cuis.to_list())
    for start, end in zip(lists.offsets, lists.offsets[1:], strict=False):
        assert cuis[start:end].tolist() == sorted(cuis[start:end])


@pytest.mark.parametrize("given", [[1.0], [1.0, 2.0, float("nan")]])
def test_scores_that_are_none_name_their_mention(built, given):
    def scorer(rows):
        return [given for _ in rows]

    with pytest.raises(UserError, match="document test-0, mention 0"):
        score.scored_lists(built / "complete" / "hpo" / "test.parquet", scorer)


def test_a_system_that_is_not_there_is_an_error(built, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.py"):
        score.measure(built / "complete" / "hpo", str(tmp_path / "nothing.py"))
    empty = tmp_path / "empty.py"
    empty.write_text("")
    with pytest.raises(UserError, match="scorer"):
        score.measure(built / "complete" / "hpo", str(empty))


def test_bm25_weighs_rare_words_more():
    collection = bm25.Collection(["common rare", "common", "common other", "common words"])
    of_rare = collection.score("rare common", "rare")
    of_common = collection.score("rare common", "common")
    assert of_rare > of_common > 0 == collection.score("rare", "common")
