"""A model calibrated on a user's lists: a reranker, and a plain cross-encoder."""

import json
import re

import numpy as np
import pytest
import torch
from data_fixtures import VOCABULARY, write_rrf
from fastapi.testclient import TestClient
from list_fixtures import assert_alike, make_lists, write_lists
from list_model import (
    assert_decided_by_all,
    list_model,
    list_rows,
    read_lists,
    run_script,
    unordered_rows,
)
from tiny_models import tiny_cross_encoder
from tiny_reranker import tiny_reranker, tiny_reranker_without_cross_encoder
from transformers import AutoModelForSequenceClassification

from umls_reranker import Dictionary, UMLSReranker, UserError, calibrate, evaluate
from umls_reranker.calibration.calibrated_model import CalibratedModel
from umls_reranker.calibration.calibration import Calibration
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.ranking import rank_scored
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.doors.http.app import create_app
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.serving.arguments import ServingArguments


@pytest.mark.parametrize("kind", ["reranker", "cross_encoder", "lists_alone"])
def test_a_model_is_calibrated_on_lists_of_another_pipeline(tmp_path, capsys, kind):
    makers = {"reranker": tiny_reranker, "cross_encoder": tiny_cross_encoder}
    model = [makers[kind](tmp_path / "model")] if kind in makers else []
    rows = unordered_rows()
    model += ["--lists", write_lists(tmp_path / "own.parquet", rows)]
    run_script("calibrate", *model, "--output", tmp_path / "new")
    said = capsys.readouterr().out
    missing = sum(row["cui"] == "C9999999" for row in rows)
    assert f"240 mentions of 80 documents; {missing} without their gold concept" in said
    # The candidates come in no order, and the one of the highest score is mostly correct.
    assert re.search(r"^gain: \+[67]\d\.\d points over the original order \(", said, re.MULTILINE)
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
    figures = metrics["figures"]
    further = ["model_before"] * (kind == "reranker")
    assert list(metrics["rows"]["systems"]) == [
        "lists_order",
        "calibrated_scores",
        *further,
        "label_else_exact_match",
        "reranker",
    ]
    correct = np.mean([row["candidates"][0]["cui"] == row["cui"] for row in rows])
    assert figures["systems/lists_order/acc@1"]["value"] == pytest.approx(correct)
    assert figures["acc@1"]["value"] > 0.8 and figures["top1_ece"]["value"] < 0.1

    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    ranked = reranker.rerank(rows[0]["entity"], rows[0]["candidates"])
    assert ranked[0].candidate == max(rows[0]["candidates"], key=lambda item: item["bm25_score"])
    assert set(reranker.calibration.source.score_ranges) == {"bm25"}
    assert (ranked[0].logit is None) == (kind == "lists_alone")
    # Without the score a fallback ranks, and nothing is called high.
    with pytest.warns(UserWarning, match="bm25_score"):
        reranker.rerank("cold", [{"name": "cold", "cui": "C0000001"}])
    assert metrics["lists"]["not_in_list"] == missing
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files >= {"README.md", "metrics.json", "reference.json"}
    assert files.isdisjoint({"model.safetensors", "tokenizer.json"}) == (kind == "lists_alone")
    card = (tmp_path / "new" / "README.md").read_text()
    assert (
        "240 mentions in 80 documents" in card
        and "scored by a calibration fitted on other documents" in card
    )
    assert ("Fine-tuned from" in card) == (kind == "reranker")
    # Lists of another pipeline have no dictionary and here no types, and the certificates' figures
    # are not held out.
    assert all(
        words not in card
        for words in ("the dictionary:", "calibration split", "type given", "no type")
    )


@pytest.mark.parametrize("every", [1, 3])
def test_lists_that_the_cross_encoder_cannot_read_are_decided_by_the_other_features(
    tmp_path, every
):
    rows = unordered_rows()
    for row in rows[::every]:
        row["entity"] = "发热"
    lists = write_lists(tmp_path / "own.jsonl", rows)
    model = tiny_cross_encoder(tmp_path / "model")
    options = ["--lists", lists, "--output", tmp_path / "new"]
    run_script("calibrate", model, *options)
    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    # Where it can read nothing, it is left out.
    assert reranker.calibration.uses_cross_encoder == (every > 1)
    ranked = [reranker.rerank(row["entity"], row["candidates"]) for row in rows[:30]]
    for row, items in zip(rows[:30], ranked, strict=True):
        assert all(0 < item.score < 1 for item in items)
        best = max(row["candidates"], key=lambda item: item["bm25_score"])
        if row["entity"] == "发热":
            assert {item.logit for item in items} == {None}
            assert items[0].candidate == best
        else:
            assert items[0].logit is not None
    figures = evaluate(reranker, unordered_rows(seed=1, prefix="e"))["figures"]
    assert figures["acc@1"]["value"] > 0.8


def test_of_a_list_that_the_cross_encoder_cannot_read_whole_nothing_is_high():
    lists = make_lists(["m", "n"], [["a", "b"]] * 2, gold=[0, 0])
    fusion = FeatureFusion({"cross_encoder": 1.0, "exact_name": 1.0}, {"string_count": 0.0}, 0.0)
    others = FeatureFusion({"exact_name": 1.0}, {"string_count": 0.0}, 0.0)
    model = CalibratedModel(fusion=fusion, list_fusion=others)
    calibration = Calibration([model], StringCounts.fit([]))
    scores = Scores(np.array([2.0, np.nan, 2.0, 1.0], np.float32), 0)
    decided = rank_scored(lists, scores, calibration)
    assert decided.complete.tolist() == [False, True]
    # It ranks below what was read, by the odds of the other features.
    assert decided.scores.log_odds[1] == 0 < decided.scores.log_odds[0]


@pytest.mark.parametrize("factor", [1e307, 1e-300])
def test_scores_that_nobody_can_compute_with_are_named(factor):
    rows = list_rows()
    for row in rows:
        for item in row["candidates"]:
            item["sapbert_score"] *= factor
    with pytest.raises(UserError, match="'sapbert' has values from .* scores"):
        calibrate(rows)


def state_of(folder):
    return json.loads((folder / "calibrator.json").read_text())


def test_what_the_cross_encoder_gains_is_told(tmp_path, capsys):
    model = tiny_reranker(tmp_path / "model")
    lists = write_lists(tmp_path / "own.jsonl", unordered_rows(120, 40))
    run_script("calibrate", model, "--lists", lists, "--output", tmp_path / "first")
    assert "that may be nothing" in capsys.readouterr().out
    state = state_of(tmp_path / "first")
    assert state["fitted_on"]["cross_encoder"]["nats_gained"] < 0.002
    weights = state["models"][0]["fusion"]["weights"]
    assert {"cross_encoder", "bm25"} <= {*weights}
    # Calibrated again on the same lists, it counts none of their mentions twice.
    run_script("calibrate", tmp_path / "first", "--lists", lists, "--output", tmp_path / "again")
    again = state_of(tmp_path / "again")["models"][0]["fusion"]["weights"]
    assert again == pytest.approx(weights)
    said = capsys.readouterr().out
    assert "40 documents may certify" in said and "previous model" not in said
    assert "40 documents were used to calibrate first: they are fitted on again" in said


def certificate_of(model):
    return model.thresholds.certificate


def test_all_labels_so_far_certify_from_the_last_model_in_any_order():
    rows = unordered_rows(600, 200)
    first = calibrate(rows[:300], target_precision=0.5)
    grown = calibrate(rows, first.folder, target_precision=0.5)
    anew = calibrate(rows, target_precision=0.5)
    shuffled = calibrate(rows[::-1], target_precision=0.5)
    assert certificate_of(anew).threshold is not None
    for other in (grown, shuffled):
        assert certificate_of(other).labelled == 200
        assert certificate_of(other).threshold == pytest.approx(certificate_of(anew).threshold)


def test_documents_of_one_look_never_certify_again():
    rows = unordered_rows(300, 100)
    once = calibrate(rows, target_precision=0.5, one_look=True)
    assert certificate_of(once).is_one_look
    assert certificate_of(calibrate(rows, once.folder, target_precision=0.5)) is None


def test_the_same_inputs_give_the_same_files_in_another_home(tmp_path, monkeypatch):
    lists = write_lists(tmp_path / "own.jsonl", unordered_rows(120, 40))
    for user in ("one", "two"):
        home = tmp_path / user / "home"
        for variable in ("HOME", "XDG_CACHE_HOME"):
            monkeypatch.setenv(variable, str(home))
        run_script("calibrate", "--lists", lists, "--output", tmp_path / user / "model")
        assert not home.exists()
    one, two = (tmp_path / user / "model" for user in ("one", "two"))
    names = sorted(path.name for path in one.iterdir())
    assert "thresholds.json" in names and "README.md" in names
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_warning_about_the_model_before_names_it(tmp_path):
    tiny_reranker_without_cross_encoder(tmp_path / "former")
    lists = write_lists(tmp_path / "own.jsonl", unordered_rows(120, 40))
    words = ("--lists", lists, "--output", tmp_path / "new")
    with pytest.warns(UserWarning, match="former: .*sapbert"):
        run_script("calibrate", tmp_path / "former", *words)


def test_a_dry_run_checks_the_lists_and_makes_nothing(tmp_path, capsys, cross_encoder):
    rows = unordered_rows(60, 20)
    lists = write_lists(tmp_path / "own.jsonl", rows)
    run_script(
        "calibrate", cross_encoder, "--lists", lists, "--output", tmp_path / "new", "--dry_run"
    )
    shown = capsys.readouterr()
    missing = sum(row["cui"] == "C9999999" for row in rows)
    assert f"60 mentions of 20 documents; {missing} without their gold concept" in shown.out
    assert "20 documents may certify" in shown.out and "at least 88" in shown.out
    assert shown.err.splitlines()[-1] == f"[calibrate] would be written to {tmp_path / 'new'}"
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    return tiny_cross_encoder(tmp_path_factory.mktemp("plain"))


def refused(tmp_path, model, lists, *words):
    with pytest.raises(UserError) as found:
        run_script("calibrate", model, "--lists", lists, "--output", tmp_path / "new", *words)
    assert not (tmp_path / "new").exists() and "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda rows: rows[3].update(entity=" "), "own.jsonl:4"),
        (lambda rows: rows[3].pop("cui"), "own.jsonl:4: cui"),
        (lambda rows: rows[3]["candidates"].append("cold"), "own.jsonl:4: candidate 6"),
        (lambda rows: [row.update(doc_id="d") for row in rows], "at least 10"),
        (lambda rows: rows.clear(), "own.jsonl"),
    ],
)
def test_lists_that_will_not_do_are_one_sentence(tmp_path, cross_encoder, change, named):
    rows = unordered_rows(60, 20)
    change(rows)
    lists = write_lists(tmp_path / "own.jsonl", rows)
    assert named in refused(tmp_path, cross_encoder, lists)


def two_logits(folder):
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, ignore_mismatched_sizes=True
    )
    model.save_pretrained(folder)


def pickled(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def configured(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (two_logits, r"the model has 2 outputs; a reranker has one logit"),
        (
            pickled,
            r"has no model.safetensors; other weight formats, such as pytorch_model.bin, can run "
            r"code",
        ),
        (
            lambda folder: configured(folder, architectures=["BertModel"]),
            r"is a BertModel, not a sequence classifier",
        ),
        (lambda folder: (folder / "config.json").unlink(), r"contains no config.json"),
        (
            lambda folder: (folder / "config.json").write_text("[]"),
            r"is a model of unknown type, not a sequence",
        ),
    ],
)
def test_cross_encoders_that_will_not_do_are_one_sentence(tmp_path, change, reason):
    model = tiny_cross_encoder(tmp_path / "model")
    change(model)
    lists = write_lists(tmp_path / "own.jsonl", unordered_rows(60, 20))
    assert re.search(reason, refused(tmp_path, model, lists))


def test_options_that_will_not_do_are_one_sentence(tmp_path, cross_encoder):
    lists = write_lists(tmp_path / "own.jsonl", unordered_rows(60, 20))
    given = {"--confidence": "1.5", "--target_precision": "0", "--calibrator": "isotonic"}
    for option, value in given.items():
        assert option[2:] in refused(tmp_path, cross_encoder, lists, option, value)
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="taken already exists"):
        run_script("calibrate", cross_encoder, "--lists", lists, "--output", tmp_path / "taken")
    # The output is looked at first: neither model nor lists exist.
    for name in ("calibrate", "evaluate"):
        with pytest.raises(UserError, match="own.jsonl is not an existing folder"):
            run_script(name, "no/model", "--lists", "no.jsonl", "--output", lists / "new")


def test_figures_of_acceptance_are_those_of_the_threshold_that_is_delivered(tmp_path, capsys):
    lists = write_lists(tmp_path / "own.jsonl", unordered_rows())
    run_script(
        "calibrate", "--lists", lists, "--output", tmp_path / "new", "--accept_precision", "0.9"
    )
    figures = json.loads((tmp_path / "new" / "metrics.json").read_text())["figures"]
    assert figures["accepted_precision"]["value"] >= 0.9
    # The same threshold, found again by its coverage among the cross-fitted scores.
    assert figures["accepted_coverage"]["value"] == pytest.approx(
        figures["systems/reranker/coverage_at_0.90"]["value"]
    )
    accept = UMLSReranker.from_pretrained(tmp_path / "new").thresholds.for_type().accept
    said = capsys.readouterr().out
    assert f"{accept:.3f}" in said and "coverage at precision 0.85 *" in " ".join(said.split())


def test_lists_of_two_linkers_of_which_each_finds_some_candidates(tmp_path, capsys):
    rows = unordered_rows()
    for number, row in enumerate(rows):
        for place, item in enumerate(row["candidates"]):
            item["found_by_score"] = item["bm25_score"]
            # The other linker finds the first three of five lists in six, and nothing else.
            if place > 2 or number % 6 == 0:
                del item["bm25_score"]
    lists = write_lists(tmp_path / "own.jsonl", rows)
    run_script("calibrate", "--lists", lists, "--output", tmp_path / "new")
    assert capsys.readouterr().out.count("bm25_score: 840 of 1,440 candidates lack it") == 1
    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    assert {"bm25", "bm25_found"} < {*reranker.calibration.models[0].fusion.weights}
    assert (
        {*reranker.calibration.scores}
        == {"bm25", "found_by"}
        == {*reranker.calibration.source.score_ranges}
    )
    # Served without a warning, and what it finds is decided by the model of all inputs.
    ranked = reranker.rerank_batch(
        [row["entity"] for row in rows], [row["candidates"] for row in rows]
    )
    assert {items[0].model_name for items in ranked} == {"all"}
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert (
        metrics["lists"]["scores"] == ["found_by", "bm25"]
        and metrics["figures"]["acc@1"]["value"] > 0.8
    )


def test_a_row_is_a_document_only_if_the_user_says_so(tmp_path, capsys):
    rows = list_rows(400, 400)
    for row in rows:
        row["cui"] = max(row["candidates"], key=lambda item: item["sapbert_score"])["cui"]
    lists = write_lists(tmp_path / "own.jsonl", rows)
    words = ("--lists", lists, "--output", tmp_path / "model")
    run_script("calibrate", *words, "--dry_run")
    assert "so nothing is certified" in capsys.readouterr().out
    assert not calibrate(rows).thresholds.is_certified
    terms = [{key: value for key, value in row.items() if key != "doc_id"} for row in rows]
    for number, row in enumerate(terms):
        row["entity"] += f" {number}"
    with pytest.raises(UserError, match="--each_row_is_a_document"):
        calibrate(terms)
    reranker = calibrate(terms, each_row_is_a_document=True)
    assert reranker.thresholds.is_certified
    metrics = evaluate(reranker, terms[:20], each_row_is_a_document=True)
    assert metrics["documents"] == 20 and "all of these documents" in metrics["notes"][0]
    run_script("calibrate", *words, "--each_row_is_a_document")
    assert "each row counted as a document" in capsys.readouterr().out
    assert UMLSReranker.from_pretrained(tmp_path / "model").thresholds.is_certified


def test_corrections_replace_rows_and_are_no_sample(tmp_path, capsys):
    rows = [row | {"mention_id": number} for number, row in enumerate(unordered_rows())]
    lists = write_lists(tmp_path / "own.jsonl", rows)
    # The answers of twelve mentions are corrected, in the doubtful ones that were looked at; one
    # more is new.
    changed = [
        row | {"cui": row["candidates"][5]["cui"], "is_random_sample": False} for row in rows[:12]
    ]
    new = rows[12] | {"mention_id": "new", "is_random_sample": False}
    add = write_lists(tmp_path / "corrections.jsonl", [*changed, new])
    run_script("calibrate", "--lists", lists, "--add", add, "--output", tmp_path / "added")
    assert "241 mentions of 80 documents" in capsys.readouterr().out
    # All rows are fitted on, and those that were not drawn at random are not measured.
    fitted_on = state_of(tmp_path / "added")["fitted_on"]
    assert (fitted_on["mentions"], fitted_on["certified_by"]["mentions"]) == (241, 228)
    metrics = json.loads((tmp_path / "added" / "metrics.json").read_text())
    correct = [row["candidates"][0]["cui"] == row["cui"] for row in rows[12:]]
    order = metrics["figures"]["systems/lists_order/acc@1"]["value"]
    assert metrics["mentions"] == 228 and order == pytest.approx(np.mean(correct))


def test_rows_of_a_program_are_calibrated_and_evaluated_as_files_are(tmp_path):
    rows = unordered_rows(120, 40)
    lists = write_lists(tmp_path / "own.jsonl", rows)
    run_script("calibrate", "--lists", lists, "--output", tmp_path / "new")
    expected = UMLSReranker.from_pretrained(tmp_path / "new")
    reranker = calibrate(rows)
    assert reranker.calibration.to_dict() == expected.calibration.to_dict()
    others = [row | {"doc_id": f"new {row['doc_id']}"} for row in rows[:60]]
    metrics = evaluate(reranker, others, resamples=50)
    assert metrics["mentions"] == 60 and metrics["verdict"].startswith("gain: ")
    folder = reranker.folder
    UMLSReranker.from_pretrained(reranker.save_pretrained(tmp_path / "saved"))
    del reranker
    assert not folder.exists()
    with pytest.raises(UserError, match="^rows:2: cui is missing"):
        evaluate(
            expected,
            [rows[0], {"doc_id": "d", "entity": "cold", "candidates": rows[0]["candidates"]}],
        )


# Lists of bare CUIs with a dictionary, and types of mentions where candidates have none


DISEASE = "C9000004"
PHENOMENON = "C9000035"


def bare_lists(mentions=90, documents=30):
    """Synonyms of the gold concept, or of another one in a tenth of the rows; scores say little."""
    rng = np.random.default_rng(0)
    cuis = sorted(VOCABULARY)
    rows = []
    for number in range(mentions):
        listed = [str(cui) for cui in rng.choice(cuis, 4, replace=False)]
        named = listed[0] if rng.random() < 0.9 else listed[1]
        mention = VOCABULARY[named][1][1]
        candidates = [
            {"cui": cui, "my_score": rng.normal()} for cui in rng.permutation(listed).tolist()
        ]
        row = {
            "doc_id": f"d{number % documents}",
            "entity": mention,
            "cui": listed[0],
            "candidates": candidates,
        }
        rows.append(row)
    return rows


def write_names(path):
    """The vocabulary in lines of BioSyn."""
    path.write_text(
        "".join(f"{cui}||{'|'.join(names)}\n" for cui, (_, names) in VOCABULARY.items())
    )
    return path


@pytest.mark.parametrize("write, name", [(write_rrf, "META"), (write_names, "names.txt")])
def test_bare_cuis_are_calibrated_and_served_with_a_dictionary(tmp_path, capsys, write, name):
    rows = bare_lists()
    dictionary = write(tmp_path / name)
    words = [
        "--lists",
        write_lists(tmp_path / "own.jsonl", rows),
        "--dictionary",
        dictionary,
        "--calibrator",
        "platt",
    ]
    run_script("calibrate", *words, "--output", tmp_path / "new")
    said = capsys.readouterr().out
    assert "gain: " in said and "synonym_score: from 0 to 1" in said
    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    known = [{"cui": DISEASE, "my_score": 0.0}, {"cui": PHENOMENON, "my_score": 0.0}]
    (row,) = Dictionary.load(dictionary).add_to([{"entity": "head cold", "candidates": known}])
    best = reranker.rerank(row["entity"], row["candidates"])[0]
    assert (best.cui, best.name) == (DISEASE, "common cold") and best.score > 0.5
    assert "rerank --dictionary`, and" in (tmp_path / "new" / "README.md").read_text()
    for item in row["candidates"]:
        del item["synonym_score"]
    with pytest.warns(
        UserWarning, match="no tiers: .* \\(synonym_score: added by rerank --dictionary"
    ):
        reranker.rerank(row["entity"], row["candidates"])


# A model calibrated on a user's lists: its scores decide everywhere that it ranks


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
    service = TestClient(create_app(reranker, ServingArguments()), base_url="http://localhost")
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
    with pytest.raises(UserError, match=r"entity\._\.absent"):
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
