"""The models that are included in the package, and an example that loads one."""

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
from umls_reranker.core.errors import UserError
from umls_reranker.hub.manifest import model_files, verify_model
from umls_reranker.lists.labels import read_labelled_lists
from umls_reranker.models.arguments import BUILT_IN, BUILT_IN_FOLDERS
from umls_reranker.models.bi_encoder import BiEncoder
from umls_reranker.models.model_files import MINILM, model_identity
from umls_reranker.retrieval.arguments import IndexArguments
from umls_reranker.serving.calibrate_lists import calibrate_lists
from umls_reranker.serving.calibration_summary import calibration_summary
from umls_reranker.serving.model_source import ModelSource

EXAMPLE = Path(__file__).parents[1] / "examples" / "rerank_a_list.py"
# Neither is installed where it serves without a network.
WITHOUT_NETWORKS = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
# The largest size of a model folder, in bytes.
LARGEST = {"built-in": 50e6, "built-in-fast": 3e6}
both_models = pytest.mark.parametrize("name", BUILT_IN_FOLDERS)


def test_the_example_prints_what_it_says():
    printed = python("-W", "error", EXAMPLE).stdout.splitlines()
    told = EXAMPLE.read_text(encoding="utf-8").partition("prints\n\n")[2].splitlines()
    assert len(printed) == 3 and printed == [line.strip() for line in told[:3]]


def test_loading_it_fast_imports_no_recipes_no_retrievers_and_no_heavy_library():
    code = "import sys\nfrom umls_reranker import UMLSReranker\n"
    code += "UMLSReranker.from_pretrained('built-in-fast').rank('a', ['a', 'b'])\n"
    code += "print(*sys.modules)"
    loaded = python("-c", code).stdout.split()
    layers = {name.split(".")[1] for name in loaded if name.startswith("umls_reranker.")}
    assert layers.isdisjoint({"pipeline", "retrieval", "training", "corpora"})
    assert {"torch", "transformers", "yaml", "argparse"}.isdisjoint(loaded)
    python("-c", WITHOUT_NETWORKS + code)


@both_models
def test_it_is_whole_small_and_says_whose_it_is(name):
    folder = BUILT_IN_FOLDERS[name]
    info = verify_model(folder)
    files = model_files(folder)
    assert {path.name for path in files} == {path.name for path in folder.iterdir()}
    assert info["base_model"] == (MINILM if name == BUILT_IN else None)
    assert sum(path.stat().st_size for path in files) < LARGEST[name]
    card = (folder / "README.md").read_text(encoding="utf-8")
    sources = ["MedMentions", "DOID", "MONDO", "NCI Thesaurus", "UBERON", "CC BY 3.0"]
    sources += ["ORDO", "MeSH", "MedQuAD"] if name == BUILT_IN else []
    assert all(source in card for source in sources)


def test_its_encoder_is_one_for_indexes_and_recipes():
    # Recipes and indexes need not say how it pools.
    assert IndexArguments(encoder=BUILT_IN).encoder_pooling == "mean"
    encoder = BiEncoder.from_pretrained(BUILT_IN, device="cpu", dtype="float32")
    digest = encoder.identity["revision"]
    assert digest in model_identity(BUILT_IN, Path())
    heart, attack, infarction = encoder.encode(["heart", "heart attack", "Myocardial infarction"])
    assert attack @ infarction > heart @ infarction
    again = BiEncoder.from_pretrained(BUILT_IN, digest, device="cpu", dtype="float32")
    assert again.identity == encoder.identity
    with pytest.raises(UserError, match=BUILT_IN):
        BiEncoder.from_pretrained(BUILT_IN, "0" * 64)


def test_of_mere_names_it_knows_synonyms():
    reranker = UMLSReranker.from_pretrained(BUILT_IN, device="cpu")
    with pytest.warns(UserWarning, match="missing inputs"):
        first = reranker.rank("heart attack", ["Heart murmur", "Myocardial infarction"])[0]
    assert first["corpus_id"] == 1


@pytest.mark.parametrize(("mention", "is_known"), [("lazy eyes", True), ("COLD", False)])
def test_it_knows_names_that_lists_do_not_show_but_no_acronyms(mention, is_known):
    names = {
        "C0013238": "dry eye syndrome",
        "C0002418": "Amblyopia",
        "C0024117": "Chronic obstructive lung disease",
    }
    candidates = [{"cui": cui, "name": name} for cui, name in names.items()]
    top = UMLSReranker.from_pretrained("built-in-fast").rerank(
        mention, candidates, entity_type="T047"
    )[0]
    assert (top.cui == "C0002418" and top.accepted) == is_known == top.accepted


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_texts_of_unknown_characters_are_no_synonyms():
    reranker = UMLSReranker.from_pretrained(BUILT_IN, device="cpu")
    pairs = [("发热", "骨折"), ("左", "右"), ("左肾", "右肺癌"), ("\U0001f912", "\U0001f915")]
    for mention, name in (*pairs, ("\0", "\u200b")):
        ranked = reranker.rerank(mention, [{"name": name, "cui": "C1"}, {"name": "itch"}])
        assert [item.logit for item in ranked] == [None, None]
        assert not ranked[0].accepted and ranked[0].tier == "reject"
    # The same text is found by its characters.
    names = ["高血压", "糖尿病", "骨折"]
    top = reranker.rerank("糖尿病", names)[0]
    assert (top.name, top.logit, top.accepted) == ("糖尿病", None, True)
    # Accents and invisible characters make no other text.
    for mention, name in (("Sjögren syndrome", "Sjogren syndrome"), ("head\u200bache", "headache")):
        top = reranker.rerank(mention, ["itch", name])[0]
        assert (top.name, top.logit) == (name, pytest.approx(20, abs=1e-3))


@pytest.mark.filterwarnings("ignore:missing inputs")
def test_the_order_counts_where_candidates_have_a_score():
    reranker = UMLSReranker.from_pretrained("built-in-fast")
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
    reranker = UMLSReranker.from_pretrained("built-in-fast")
    names = ["Heart Failure", "Myocardial Infarction", "Heart"]
    own_ids = [{"name": name, "cui": f"LOCAL:{number}"} for number, name in enumerate(names)]
    scores = [[item.score for item in reranker.rerank("heart", one)] for one in (own_ids, names)]
    assert scores[0] == scores[1]


def test_lists_of_other_documents_take_its_counts_and_no_certificate():
    source = ModelSource.load("built-in-fast")
    assert len(source.documents.latest) > 500
    assert len(source.counts) > 5_000


@pytest.mark.parametrize("known", [1, 20])
@pytest.mark.filterwarnings("ignore:the model before, built-in-fast")
def test_known_documents_are_left_out_and_the_counts_stay(tmp_path, known):
    """A single shared document once took all its counts away."""
    source = ModelSource.load("built-in-fast")
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
    assert (
        "1 documents were used to calibrate built-in-fast: they are left out"
        in calibration_summary(new)
    )
