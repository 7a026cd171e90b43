"""A full run with everything that reads context: trained encoder, union of retrievers,
cross-encoder, all features.
"""

import json

import pytest
from list_fixtures import given_candidates

from umls_reranker import ConceptLinker, UMLSReranker
from umls_reranker.calibration.features import FEATURES
from umls_reranker.lists.labels import read_run_lists
from umls_reranker.lists.read import read_rows
from umls_reranker.pipeline.stages import RunFolder

pytest_plugins = ["pipeline_fixtures"]


@pytest.fixture(scope="module")
def run(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("context")
    keys = {
        "output_dir": folder,
        "encoder_training_steps": 4,
        "retrievers": ["dense", "context", "lexical", "forms", "nearest_mentions"],
        "max_steps": 10,
        "start_from_encoder": True,
        "context_tokens": 4,
        "features": list(FEATURES),
    }
    names = (
        "prepare_data",
        "train_encoder",
        "build_index",
        "mine_negatives",
        "train",
        "calibrate",
        "evaluate",
    )
    for script in names:
        outcome = scripts.run(script, **keys)
        assert outcome.code == 0, outcome.err
    return folder / "mini", scripts, keys


def first_row(folder):
    """The first row of the test lists."""
    return next(
        row for batch in read_rows(folder / "lists" / "test.arrow") for row in batch.mappings()
    )


def test_lists_hold_the_scores_of_all_retrievers(run):
    keys = {"cui", "name", "retrieval_score", "context_score", "lexical_score", "forms_score"}
    assert {*first_row(run[0])["candidates"][0]} == keys
    summary = json.loads((run[0] / "lists" / "manifest.json").read_text())["summary"]
    assert set(summary["test"]["recall"]) == {
        "dense",
        "context",
        "lexical",
        "forms",
        "nearest_mentions",
        "union",
    }


def test_the_reranker_weighs_all_features_and_has_fallbacks_without_what_requests_may_lack(run):
    reranker = UMLSReranker.from_pretrained(run[0] / "model")
    models = {model.name: model for model in reranker.calibration.models}
    assert list(models) == ["all", "no type", "names", "names, no type"]
    assert list(models["all"].fusion.weights) == list(FEATURES)
    of_names = {name for name, feature in FEATURES.items() if not feature.inputs}
    assert (
        set(models["names"].fusion.weights)
        == set(models["names, no type"].fusion.weights)
        == of_names
    )
    row = first_row(run[0])
    bare = [{"name": candidate["name"], "cui": candidate["cui"]} for candidate in row["candidates"]]
    given = {name: row[name] for name in ("left", "right", "index_key")}
    # The types of a run's candidates are in its dictionary.
    with pytest.warns(UserWarning, match="missing inputs: semantic_types"):
        ranked = reranker.rerank(row["entity"], row["candidates"], "T047", **given)
    assert {item.model_name for item in ranked} == {"no type"}
    with pytest.warns(UserWarning, match="missing inputs: .*_score"):
        ranked = reranker.rerank(row["entity"], bare)
    assert {item.model_name for item in ranked} == {"names, no type"}


@pytest.mark.filterwarnings("ignore:missing inputs")  # some mentions have no type
def test_the_linker_gives_the_scores_of_the_evaluation(run):
    # Candidates, their types and all scores: the reranker sees what calibration and evaluation saw.
    linker = ConceptLinker.from_run(run[0], device="cpu", dtype="float32")
    mentions = RunFolder(run[0]).splits("mentions")["test"]
    reranker = linker.reranker
    lists = read_run_lists(run[0], "test", linker.concepts)
    expected = reranker.decide(lists).probabilities.tolist()
    linked = linker.link_batch(
        list(mentions["mention"]),
        entity_types=list(mentions["semantic_types"]),
        lefts=list(mentions["left"]),
        rights=list(mentions["right"]),
    )
    by_cui = [{item.cui: item.score for item in items} for items in linked]
    found = [
        by_cui[row][cui]
        for row, cui in zip(lists.owner.tolist(), lists.cuis.to_list(), strict=True)
    ]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_linker_retrieves_what_was_evaluated_wherever_its_index_lies(run, tmp_path):
    folder, scripts, keys = run
    outcome = scripts.run("export_index", index_folder=tmp_path / "index", **keys)
    assert outcome.code == 0, outcome.err
    parts = {"concepts", "index", "lexical", "forms", "mention_index", "encoder", "index.json"}
    assert {path.name for path in (tmp_path / "index").iterdir()} == parts
    linker = ConceptLinker.from_pretrained(
        folder / "model", tmp_path / "index", device="cpu", dtype="float32"
    )
    # The key is over all three indexes.
    lists = read_run_lists(folder, "test", linker.concepts)
    assert (
        linker.retriever.index_key == linker.reranker.calibration.index_key == lists.index_keys[0]
    )
    queries = linker.read(lists.mentions, lefts=lists.lefts, rights=lists.rights)
    retrieved = linker.candidates(queries).to_pylist()
    for found, expected in zip(retrieved, given_candidates(lists), strict=True):
        assert [(item["cui"], item["name"]) for item in found] == [
            (item["cui"], item["name"]) for item in expected
        ]
        for item, same in zip(found, expected, strict=True):
            assert set(item) == set(same) >= {"retrieval_score", "context_score", "lexical_score"}
            assert item["semantic_types"] == same["semantic_types"]
            scores = [key for key in item if key.endswith("_score")]
            assert [item[key] for key in scores] == pytest.approx(
                [same[key] for key in scores], abs=1e-5
            )
