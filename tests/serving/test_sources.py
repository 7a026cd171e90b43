"""Tiers and decisions belong to the source of the lists: the same by every way to rank."""

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from list_fixtures import write_lists
from list_model import list_model, list_rows, run_script

from umls_reranker import UMLSReranker, UserError
from umls_reranker.doors.http.app import create_app
from umls_reranker.serving.arguments import ServingArguments


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    """Calibrated on lists of no index with ``sapbert_score``."""
    folder = tmp_path_factory.mktemp("user")
    list_model(folder)
    return UMLSReranker.from_pretrained(folder / "my_model")


def with_scores(row, *names):
    """The row, whose candidates have the same score under these names."""
    items = [{"name": item["name"], "cui": item["cui"]} for item in row["candidates"]]
    for item, former in zip(items, row["candidates"], strict=True):
        item.update(dict.fromkeys(names, former["sapbert_score"]))
    return row | {"candidates": items}


def rescaled(row, *factors):
    """The row, whose first candidates have their scores times these factors."""
    items = [dict(item) for item in row["candidates"]]
    for item, factor in zip(items, factors, strict=False):
        item["sapbert_score"] *= factor
    return row | {"candidates": items}


def first_score_alone(row):
    """The row, of whose candidates only the first has its score."""
    first, *rest = row["candidates"]
    return row | {"candidates": [first, *(item | {"sapbert_score": None} for item in rest)]}


# What becomes of a row -> whether it is of the source.
CHANGES = {
    "the source": (lambda row: row, True),
    "a candidate without the score": (
        lambda row: row | {"candidates": [*row["candidates"], {"name": "new", "cui": "C9"}]},
        True,
    ),
    "another score": (lambda row: with_scores(row, "bm25_score"), False),
    "a further score": (lambda row: with_scores(row, "sapbert_score", "bm25_score"), False),
    "no score": (with_scores, False),
    "percentages": (lambda row: rescaled(row, *[100] * 5), False),
    "scores of 1e30": (lambda row: rescaled(row, *[1e30] * 5), False),
    "the best score out of range": (lambda row: rescaled(row, 100), False),
    "the last score out of range": (lambda row: rescaled(row, 1, 1, 1, 1, -100), True),
    "a percentage, and no other score": (lambda row: first_score_alone(rescaled(row, 100)), False),
    "one score, and no other": (lambda row: first_score_alone(row), True),
    "a single candidate": (lambda row: row | {"candidates": row["candidates"][:1]}, True),
    "an index": (lambda row: row | {"index_key": "x"}, False),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_a_tier_is_given_to_lists_of_the_source_alone(reranker, change, tmp_path, capsys):
    changed, has_tier = CHANGES[change]
    row, other = map(changed, list_rows(2))
    plain = list_rows(1)[0]
    ranked = reranker.rerank_batch(
        [plain["entity"], row["entity"]],
        [plain["candidates"], row["candidates"]],
        index_keys=["", row.get("index_key", "")],
    )
    # In a batch with others, each is what it is alone.
    assert ranked[0][0].tier is not None
    found = {"python": ranked[1][0].as_row()}
    lists = write_lists(tmp_path / "rows.jsonl", [row, other])
    output = tmp_path / "ranked.parquet"
    run_script("rerank", reranker.folder, lists, output)
    said = capsys.readouterr().out
    assert ("no tiers for 2 mentions" in said) != has_tier
    assert "of 2 with a gold concept, 2 of them of documents that the model was fitted on" in said
    assert "with sapbert_score (from " in said and "), as in 20 documents" in said
    if not has_tier:
        assert "certified" not in said
    found["file"] = pq.read_table(output)["ranked"][0].as_py()[0]
    if "index_key" not in row:
        with TestClient(
            create_app(reranker, ServingArguments()), base_url="http://localhost"
        ) as service:
            found["http"] = service.post("/rank", json={"mentions": [row]}).json()[0][0]
            assert service.get("/info").json()["calibrated_on"] == reranker.calibrated_on
    for by, top in found.items():
        assert (top["tier"] is not None, top["accepted"] is not None) == (has_tier, has_tier), by
        assert top["score"] == pytest.approx(ranked[1][0].score)


def test_a_list_of_another_source_is_named_and_never_certified(reranker):
    row = with_scores(list_rows(1)[0], "bm25_score")
    with pytest.warns(UserWarning) as caught:
        reranker.rerank(row["entity"], row["candidates"])
    said = [str(warning.message) for warning in caught]
    assert said[0].startswith("no tiers: ") and "umls-reranker calibrate MODEL --lists" in said[0]
    assert "certified" not in "".join(said) and "sapbert_score" in repr(reranker)


def test_scores_that_only_some_lists_have_may_be_missing(tmp_path):
    rows = list_rows()
    rows[:30] = [with_scores(row) for row in rows[:30]]
    lists = write_lists(tmp_path / "rows.jsonl", rows)
    run_script("calibrate", "--lists", lists, "--output", tmp_path / "model")
    calibration = UMLSReranker.from_pretrained(tmp_path / "model").calibration
    assert calibration.source.list_scores == {"sapbert": False}
    assert "sapbert_score (not in all, from " in (tmp_path / "model" / "README.md").read_text()


def test_lists_of_several_indexes_are_refused(tmp_path):
    rows = list_rows()
    rows[2]["index_key"] = "another"
    lists = write_lists(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match="rows.jsonl:3: index_key"):
        run_script("calibrate", "--lists", lists, "--output", tmp_path / "model")
