"""A model calibrated on a user's lists: its scores decide everywhere that it ranks."""

import pytest
from fastapi.testclient import TestClient
from list_fixtures import assert_alike, write_lists
from list_model import assert_decided_by_all, list_model, list_rows, read_lists, run_script

from umls_reranker import UMLSReranker, UserError
from umls_reranker.doors.http.app import create_app
from umls_reranker.serving.arguments import ServingArguments


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user works: with my_lists.jsonl and my_model."""
    folder = tmp_path_factory.mktemp("user")
    list_model(folder)
    return folder


@pytest.fixture(scope="module")
def reranker(folder):
    return UMLSReranker.from_pretrained(folder / "my_model")


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_where_only_some_candidates_have_a_fitted_score_the_others_have_the_lowest(
    folder, reranker
):
    whole, partly = read_lists(folder)[:2]
    del partly["candidates"][3]["sapbert_score"]
    lowest = min(item["sapbert_score"] for item in partly["candidates"] if "sapbert_score" in item)
    filled = partly | {
        "candidates": [{"sapbert_score": lowest} | item for item in partly["candidates"]]
    }
    bare = {
        "entity": "cold",
        "candidates": [{"name": "cold", "cui": "C1"}, {"name": "fever", "cui": "C2"}],
    }
    expected = reranker.rerank_batch(["cold"], [filled["candidates"]])
    body = {"mentions": [whole, partly | {"entity": "cold"}, bare]}
    service = TestClient(create_app(reranker, ServingArguments()))
    with service, pytest.warns(UserWarning, match="sapbert_score: candidates"):
        found = service.post("/rank", json=body).json()
    assert_alike([found[1]], expected)
    assert [items[0]["model_name"] for items in found] == ["all", "all", "names"]


def test_a_spacy_component_ranks_the_candidates_of_another(folder, reranker, monkeypatch):
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import Span

    monkeypatch.chdir(folder)
    row = read_lists(folder)[0]
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "X", "pattern": row["entity"]}])
    text = f"A {row['entity']} and no other word."
    Span.set_extension(
        "listed",
        getter=lambda entity: {row["entity"]: row["candidates"]}.get(entity.text),
        force=True,
    )
    nlp.add_pipe("umls_reranker", config={"model": "my_model", "candidates": "listed"})
    (entity,) = nlp(text).ents
    assert_decided_by_all([entity._.umls], reranker, [row])
    top = reranker.rerank(row["entity"], row["candidates"])[0]
    assert entity.kb_id_ == (top.cui if top.accepted else "")
    nlp.replace_pipe(
        "umls_reranker", "umls_reranker", config={"model": "my_model", "candidates": "absent"}
    )
    with pytest.raises(
        UserError, match=r"no component has set entity\._\.absent, the candidates to rank"
    ):
        nlp(text)


def watched(folder, rows, capsys):
    """Exit code and output of monitor on the predictions of rows."""
    lists = write_lists(folder / "watched.jsonl", rows)
    predictions = folder / "predictions.jsonl"
    run_script("rerank", folder / "my_model", lists, predictions, "--overwrite", "--device", "cpu")
    capsys.readouterr()
    return run_script("monitor", folder / "my_model", predictions), capsys.readouterr().out


def test_the_lists_that_a_model_was_calibrated_on_tell_nothing_of_drift(folder, capsys):
    rows = read_lists(folder)
    code, said = watched(folder, rows, capsys)
    assert code == 0 and said.startswith("0 mentions") and f"{len(rows)} more left out" in said
    others = list_rows(200, 60, seed=1, prefix="n")
    for row in others:
        for candidate in row["candidates"]:
            candidate["sapbert_score"] = 0.5
    code, said = watched(folder, rows + others, capsys)
    assert code == 1 and said.startswith("200 mentions") and "ALARM" in said
