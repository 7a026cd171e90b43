import numpy as np
from list_fixtures import make_lists
from trigram_encoder import make_concepts

from umls_reranker.data.relations import Relations, RelationTable, write_relations
from umls_reranker.evaluation import near_misses as module
from umls_reranker.evaluation.linking import Documents

VOCABULARY = {
    "C0000001": ("", ["common cold", "cold"]),
    "C0000002": ("", ["cold temperature", "Cold"]),
    "C0000003": ("", ["infection"]),
    "C0000004": ("", ["bone"]),
}
COLD, TEMPERATURE, INFECTION, BONE = VOCABULARY
UNKNOWN = "C0000009"
GOLD = [COLD, COLD, INFECTION, COLD, UNKNOWN, COLD, COLD]
ANSWERS = [[COLD, BONE], [TEMPERATURE], [COLD], [BONE, COLD], [COLD], [], [BONE]]


def lists_of(gold, answers):
    items = [[{"name": cui, "cui": cui} for cui in own] for own in answers]
    places = [own.index(cui) if cui in own else -1 for cui, own in zip(gold, answers, strict=True)]
    documents = [str(place // 2) for place in range(len(gold))]
    return make_lists(gold, items, gold=places, cuis=gold, documents=documents)


def folder_of(tmp_path, parents=()):
    concepts = make_concepts(tmp_path, VOCABULARY)
    write_relations([Relations.from_parents(list(parents))], concepts.cui_numbers, tmp_path)
    return concepts, RelationTable.load(tmp_path)


def near_misses(lists, scores, concepts, relations):
    documents = Documents.of(lists.annotations.documents, resamples=50)
    return module.near_misses(lists, scores, concepts, relations, documents)


def test_incorrect_answers_are_near_by_name_or_by_relation(tmp_path):
    searched = folder_of(tmp_path, [(COLD, INFECTION)])
    lists = lists_of(GOLD, ANSWERS)
    counted = near_misses(lists, -np.arange(len(lists.names)), *searched)
    none = dict.fromkeys(("SY", "PAR", "CHD", "RB", "RN", "SIB"), 0)
    # A homonym, a child of the gold concept, and twice a bone; the unknown concept and the empty list do not count.
    assert counted["incorrect"] == 4
    assert counted["kinds"] == {"shared_name": 1, **none, "CHD": 1}
    share = counted["share"]
    assert share["value"] == 0.5
    assert 0 <= share["low"] <= share["value"] <= share["high"] <= 1
    assert share["population"] == "4 incorrect top candidates of mentions in the dictionary"


def test_the_scores_decide_who_is_the_top_candidate(tmp_path):
    searched = folder_of(tmp_path)
    lists = lists_of([COLD, COLD], [[COLD, TEMPERATURE], [BONE, COLD]])
    assert near_misses(lists, np.array([1.0, 2.0, 0.0, 1.0]), *searched)["kinds"]["shared_name"] == 1
    assert near_misses(lists, np.array([2.0, 1.0, 0.0, 1.0]), *searched)["incorrect"] == 0


def test_a_homonym_that_is_related_too_counts_once(tmp_path):
    searched = folder_of(tmp_path, [(COLD, TEMPERATURE)])
    counted = near_misses(lists_of([COLD], [[TEMPERATURE]]), np.zeros(1), *searched)
    assert sum(counted["kinds"].values()) == counted["kinds"]["shared_name"] == 1


def test_without_an_incorrect_answer_there_is_no_share(tmp_path):
    share = near_misses(lists_of([COLD], [[COLD]]), np.zeros(1), *folder_of(tmp_path))["share"]
    assert np.isnan([share["value"], share["low"], share["high"]]).all()
