"""The linker on a finished run: it ranks as its evaluation does, with model and index alone."""

import doctest
import errno
import json
import os
import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from list_fixtures import COSINE_ROUNDING, assert_alike
from tiny_reranker import refused

from umls_reranker import ConceptLinker
from umls_reranker.core.errors import UserError
from umls_reranker.doors.http.app import create_app
from umls_reranker.linking import linker as linking
from umls_reranker.linking.remembered_search import RememberedSearch
from umls_reranker.lists.run_lists import read_run_lists
from umls_reranker.retrieval.deployment import export_index
from umls_reranker.retrieval.index_settings import IndexSettings
from umls_reranker.serving.arguments import ServingArguments
from umls_reranker.vocab.concept_table import ConceptTable

pytest_plugins = ["pipeline_fixtures"]


@pytest.fixture(scope="module")
def linker(finished):
    return ConceptLinker.from_run(finished.folder, device="cpu", dtype="float32")


@pytest.mark.filterwarnings("ignore:missing inputs")  # of a mention without a type
def test_the_examples_print_what_they_say(finished, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(finished.folder)
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(linking) == (0, 8)


def test_scores_of_the_linker_count_with_the_key_of_its_index(finished, linker):
    lists = read_run_lists(finished.folder, "test", ConceptTable.load(finished.folder / "concepts"))
    with pytest.warns(UserWarning, match="missing inputs: entity_type"):
        decided = linker.reranker.decide(lists)
    key = linker.reranker.calibration.source.index_key
    assert key == linker.retriever.index_key == lists.index_keys[0] != ""
    # The run's own lists have all inputs, save where a mention has no type.
    assert (decided.models == 0).tolist() == lists.types.is_known.tolist()
    text = lists.mentions[0]
    kind = list(lists.types[0])
    (items,) = linker.candidates(linker.read([text])).to_pylist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = linker.reranker.rerank(text, items, kind, index_key=key)
    assert {item.model_name for item in ours} == {"all"}
    with pytest.warns(UserWarning, match=key[:12]):
        copied = linker.reranker.rerank(text, items, kind)
    assert {item.model_name for item in copied} == {"names"}
    assert None not in {ours[0].tier, ours[0].accepted} and copied[0].tier is None
    # The key alone makes no list one of the index, with scores from elsewhere or none.
    names = [{"name": item["name"], "cui": item["cui"]} for item in items]
    scores = [name for name in items[0] if name.endswith("_score")]
    percentages = [item | dict.fromkeys(scores, 95.0) for item in names]
    for of_others in (percentages, names):
        with pytest.warns(UserWarning, match="no tiers"):
            top = linker.reranker.rerank(text, of_others, kind, index_key=key)[0]
        assert (top.tier, top.accepted) == (None, None)


def test_a_service_trusts_the_scores_of_its_own_index(linker):
    (items,) = linker.candidates(linker.read(["renal failure"])).to_pylist()
    asked = {"mention": "renal failure", "entity_type": "T047"}
    sent = [
        asked | {"candidates": candidates}
        for candidates in (items, [item | {"index_key": "x"} for item in items])
    ]
    with (
        TestClient(
            create_app(linker.reranker, ServingArguments(), linker), base_url="http://localhost"
        ) as client,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        (linked,) = client.post("/link", json={"mentions": [asked], "top": 99}).json()
        ranked = client.post("/rank", json={"mentions": sent}).json()
        # One that is too long has an error of its own; the number of the other is of the request.
        absent = [{"mention": "a" * 1_001}, {"mention": "fever"}]
        answer = client.post("/link", json={"document": "a cold", "mentions": absent}).json()
        assert answer["error"] == "mention 1: the mention 'fever' is not in its document"
    assert {row["model_name"] for row in linked} == {"all"}
    assert [{row["model_name"] for row in rows} for rows in ranked] == [{"names"}] * 2
    assert "retrieval_score" not in json.dumps(client.get("/openapi.json").json())


def test_a_concept_is_described_by_the_dictionary(finished, linker):
    concepts = ConceptTable.load(finished.folder / "concepts")
    linked = linker.link("renal failure", entity_type="T047")
    assert [item.rank for item in linked] == list(range(1, 9))
    for item in linked:
        (row,) = concepts.rows([item.cui])
        assert item.preferred_name == concepts.names(row)[0] and item.name in concepts.names(row)
        assert item.semantic_types == tuple(concepts.semantic_types(row))


def test_text_around_a_mention_is_that_of_the_corpus_reader(linker):
    document = "Colds are common. A cold, or common cold, is mild."
    read = linker.read(["cold", "cold"], [document] * 2, [20, None])
    left, right = "Colds are common. A ", ", or common cold, is mild."
    assert read.to_pylist()[0] == {"entity": "cold", "left": left, "right": right}
    assert read == linker.read(["cold"] * 2, lefts=[left] * 2, rights=[right] * 2)
    rows = pd.DataFrame({"mention": ["cold"], "text": [document], "start": [20]}, index=["a"])
    assert linker.read(rows["mention"], rows["text"], rows["start"]) == read[:1]
    # As of a document, no more is read of the text that is given.
    sides = ("cold " * 100, " or flu" * 100)
    assert linker.read(["fever"], lefts=sides[:1], rights=sides[1:]) == linker.read(
        ["fever"], ["fever".join(sides)]
    )
    with pytest.raises(ValueError, match="'fever' is not in its document$"):
        linker.read(["fever"], [document])
    with pytest.raises(ValueError, match="'cold'.* 3"):
        linker.read(["cold"], [document], [3])
    with pytest.raises(ValueError, match="1 mentions, 2 documents"):
        linker.read(["cold"], [document] * 2)
    with pytest.raises(ValueError, match="^mention 1: .*'fever'"):
        linker.link_batch(["cold", "fever"], ["a cold", "a cold"])


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"mentions": ["a", 5]}, TypeError, "mention 1: mention"),
        ({"mentions": ["a", " "]}, ValueError, "mention 1: mention"),
        (
            {"mentions": ["a" * 1_000, "a" * 1_001]},
            ValueError,
            "mention 1: mention has 1,001 characters",
        ),
        ({"mentions": ["\ud800"]}, ValueError, "mention"),
        ({"mentions": "cold"}, TypeError, "mentions must be a list, not str"),
        ({"mentions": ["a"], "documents": "a"}, TypeError, "documents must be a list, not str"),
        ({"mentions": ["a"], "lefts": [5]}, TypeError, "left"),
        ({"mentions": ["a"], "documents": ["a \ud800"]}, ValueError, "document"),
        (
            {"mentions": ["a"], "documents": ["a"], "starts": [float("nan")]},
            TypeError,
            "start must be an int .* not float",
        ),
    ],
)
def test_arguments_that_will_not_do_are_named(arguments, error, reason):
    with pytest.raises(error, match=f"^{reason}"):
        ConceptLinker.read(SimpleNamespace(expands_abbreviations=False), **arguments)


def test_the_text_on_a_side_is_given_by_name(linker):
    with pytest.raises(TypeError, match="positional"):
        linker.link("fever", None, None, "T047", "had a")
    with pytest.raises(TypeError, match="positional"):
        linker.link_batch(["fever"], None, None, ["T047"], ["had a"])
    with pytest.raises(TypeError, match="positional"):
        linker.read(["fever"], None, None, ["had a"])


def test_abbreviations_are_expanded_where_the_run_expanded_them(finished, linker, monkeypatch):
    document = "Acute renal failure (ARF) is sudden. ARF may be mild."
    assert linker.read(["ARF"], [document], [37])["entity"].to_pylist() == ["ARF"]
    monkeypatch.setattr(linker, "expands_abbreviations", True)
    read = linker.read(["ARF", "ARF", "sudden"], [document, None, document], [37, None, None])
    assert read["entity"].to_pylist() == ["Acute renal failure", "ARF", "sudden"]
    assert read["right"].to_pylist()[0] == " may be mild."


def test_equal_mentions_are_searched_once(linker, monkeypatch):
    searched = []
    search = linker.retriever.search

    def counted(texts, *arguments):
        searched.extend(texts)
        return search(texts, *arguments)

    monkeypatch.setattr(linker.retriever, "search", counted)
    queries = linker.read(["cold", "fever", "cold"], lefts=["a", "b", "c"])
    lists = linker.candidates(queries).to_pylist()
    assert searched == ["cold", "fever"] and lists[0] == lists[2] != lists[1]
    remembered = RememberedSearch(linker.retriever, 8, max_strings=2)
    for texts in (["fever", "cold"], ["cold"], ["cold", "pain"], ["pain", "fever", "cold"], []):
        searched.clear()
        found = remembered.search(texts)
        assert searched == {"cold": [], "": []}.get(" ".join(texts), texts)
        assert found.rows.tolist() == search(texts, 8).rows.tolist()
        assert_alike(found.scores, search(texts, 8).scores, COSINE_ROUNDING)


def test_an_exported_index_and_the_model_are_all_that_is_needed(
    scripts, finished, linker, tmp_path
):
    target = tmp_path / "index"
    outcome = scripts.run("export_index", scripts.recipe, "--index_folder", target)
    assert (outcome.code, outcome.errors) == (0, []), outcome.err
    assert {path.name for path in target.iterdir()} == {
        "concepts",
        "index",
        "encoder",
        "index.json",
    }
    assert not (target / "concepts" / "relations.npy").exists()
    model = linker.reranker.save_pretrained(tmp_path / "model")
    # The encoder's own folder is not there any more.
    moved = scripts.materials / "encoder"
    moved.rename(scripts.materials / "gone")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            alone = ConceptLinker.from_pretrained(model, target, device="cpu", dtype="float32")
    finally:
        (scripts.materials / "gone").rename(moved)
    asked = {"mention": "renal failure", "entity_type": "T047"}
    # A logit of a remembered pair was computed in a batch of another shape.
    assert_alike([alone.link(**asked)], [linker.link(**asked)])
    again = scripts.run("export_index", scripts.recipe, "--index_folder", target)
    assert again.code == 2 and "already exists" in again.errors[0]


def test_an_exported_index_is_linked_on_one_file_system_and_copied_to_another(
    finished, tmp_path, monkeypatch
):
    source = finished.folder / "concepts" / "manifest.json"
    export_index(finished.folder, tmp_path / "linked")
    assert (tmp_path / "linked" / "concepts" / "manifest.json").samefile(source)

    def refuse(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    export_index(finished.folder, tmp_path / "copied")
    copied = tmp_path / "copied" / "concepts" / "manifest.json"
    assert not copied.samefile(source) and copied.read_bytes() == source.read_bytes()


def test_what_does_not_belong_together_is_refused(finished, linker, tmp_path):
    model = linker.reranker.save_pretrained(tmp_path / "model")

    def refusal(index):
        return refused(ConceptLinker.from_pretrained, model, index, device="cpu")

    mixed = tmp_path / "mixed"
    shutil.copytree(finished.folder / "index", mixed / "index")
    assert "has no index.json; " in refusal(mixed) and "build_index again" in refusal(mixed)
    settings = IndexSettings.load(finished.folder)
    settings.save(mixed)
    assert "has no concepts/" in refusal(mixed)
    shutil.copytree(finished.folder / "concepts", mixed / "concepts")
    replace(settings, folders=settings.folders | {"concepts": "another"}).save(mixed)
    assert "concepts is not what the indexes next to it were built from" in refusal(mixed)
    # A later release in both is used, and said.
    replace(settings, index_key="another").save(mixed)
    other = ConceptLinker.from_pretrained(model, mixed, device="cpu")
    assert not other.is_calibrated
    with pytest.warns(UserWarning, match="no tiers"):
        assert {item.model_name for item in other.link("renal failure", entity_type="T047")} == {
            "names"
        }


def test_a_run_folder_that_is_missing_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="^quickstart .*model/"):
        ConceptLinker.from_run("quickstart")
