"""The model that is included in the package, and an example that loads it."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from list_fixtures import write_lists
from list_model import list_rows
from processes import python

from umls_reranker import UMLSReranker
from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.hub.model_folder import BUILT_IN_FOLDER, model_files, verify_model
from umls_reranker.lists.labels import read_labelled_lists
from umls_reranker.serving.model_source import ModelSource
from umls_reranker.serving.on_lists import calibrate_lists, calibration_summary

EXAMPLE = Path(__file__).parents[1] / "examples" / "rerank_a_list.py"
# Neither is installed where it serves without a cross-encoder.
WITHOUT_CROSS_ENCODERS = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"


def test_the_example_needs_no_cross_encoder_library_and_prints_what_it_says(tmp_path):
    code = EXAMPLE.read_text(encoding="utf-8")
    run = python("-W", "error", "-c", WITHOUT_CROSS_ENCODERS + code, cwd=tmp_path)
    assert run.stderr == "" and run.stdout.count("->") == 3
    assert all(f"    {line}\n" in code for line in run.stdout.splitlines())


def test_loading_it_imports_no_recipes_no_retrievers_and_no_heavy_library():
    code = "import sys\nfrom umls_reranker import UMLSReranker\n"
    code += "UMLSReranker.from_pretrained('built-in')\nprint(*sys.modules)"
    loaded = python("-c", code).stdout.split()
    layers = {name.split(".")[1] for name in loaded if name.startswith("umls_reranker.")}
    assert layers.isdisjoint({"pipeline", "retrieval", "training", "corpora"})
    assert {"torch", "transformers", "yaml", "argparse"}.isdisjoint(loaded)


def test_it_is_whole_small_and_says_whose_it_is():
    info = verify_model(BUILT_IN_FOLDER)
    files = model_files(BUILT_IN_FOLDER)
    assert info["base_model"] is None and {path.name for path in files} == {
        path.name for path in BUILT_IN_FOLDER.iterdir()
    }
    assert sum(path.stat().st_size for path in files) < 3e6
    card = (BUILT_IN_FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(
        source in card
        for source in ("MedMentions", "DOID", "MONDO", "NCI Thesaurus", "UBERON", "CC BY 3.0")
    )


@pytest.mark.parametrize(("mention", "is_known"), [("lazy eyes", True), ("COLD", False)])
def test_it_knows_names_that_lists_do_not_show_but_no_acronyms(mention, is_known):
    names = {
        "C0013238": "dry eye syndrome",
        "C0002418": "Amblyopia",
        "C0024117": "Chronic obstructive lung disease",
    }
    candidates = [{"cui": cui, "name": name} for cui, name in names.items()]
    top = UMLSReranker.from_pretrained("built-in").rerank(mention, candidates, entity_type="T047")[
        0
    ]
    assert (top.cui == "C0002418" and top.accepted) == is_known == top.accepted


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_the_order_counts_where_candidates_have_a_score():
    reranker = UMLSReranker.from_pretrained("built-in")
    names = ["Pain, chronic", "a pain", "Chronic pains", "pain"]
    tops = [reranker.rerank("chronic pain", order)[0] for order in permutations(names)]
    assert {(top.name, top.model_name) for top in tops} == {("Pain, chronic", "names, no type")}
    cuis = {"pain q": "C0000001", "pain y": "C0000002", "pain z": "C0000003"}
    scored = [{"name": name, "cui": cui, "bm25_score": 1} for name, cui in cuis.items()]
    for candidates in (scored, scored[::-1]):
        top = reranker.rerank("chronic pain", candidates, entity_type="T184")[0]
        assert (top.cui, top.model_name) == (candidates[0]["cui"], "scores")
    top = reranker.rerank("chronic pain", [{"name": "pain", "score": 1}])[0]
    assert top.model_name == "scores, names, no type"
    models = reranker.calibration.models
    assert len(models) == 8 and not any(model.thresholds.is_certified for model in models)


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_ids_of_another_vocabulary_say_as_much_as_none():
    reranker = UMLSReranker.from_pretrained("built-in")
    names = ["Heart Failure", "Myocardial Infarction", "Heart"]
    own_ids = [{"name": name, "cui": f"LOCAL:{number}"} for number, name in enumerate(names)]
    scores = [[item.score for item in reranker.rerank("heart", one)] for one in (own_ids, names)]
    assert scores[0] == scores[1]


def test_lists_of_other_documents_take_its_counts_and_no_certificate():
    source = ModelSource.load("built-in")
    assert (
        len(source.reranker.calibration.history.certificates) == 1
        and source.history.certificates == ()
    )
    assert len(source.counts) > 5_000


@pytest.mark.parametrize("known", [1, 20])
@pytest.mark.filterwarnings("ignore:the model before, built-in")
def test_known_documents_are_left_out_and_the_counts_stay(tmp_path, known):
    """A single shared document once took all its counts away."""
    source = ModelSource.load("built-in")
    path = write_lists(tmp_path / "own.jsonl", list_rows(60, 40))
    lists = read_labelled_lists(path, source.hierarchy)
    documents = lists.annotations.documents.copy()
    # The PMID of a document that it was calibrated on, and as many mentions of it as given.
    documents[:known] = "26316050"
    annotations = replace(lists.annotations, documents=documents, doc_ids=documents)
    shared = replace(lists, annotations=annotations)
    settings = CalibrationArguments(calibrator="platt")
    new = calibrate_lists(source, shared, settings)
    alone = calibrate_lists(source, lists.take(np.arange(known, 60)), settings)
    assert new.calibration.to_dict() == alone.calibration.to_dict()
    assert new.metrics["lists"]["known_documents"] == 1 and len(new.outcomes) == 60 - known
    assert len(new.calibration.training_counts) == len(source.counts)
    assert "1 documents were used to calibrate built-in: they are left out" in calibration_summary(
        new
    )
