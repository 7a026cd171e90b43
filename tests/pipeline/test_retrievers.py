"""What retrievers declare decides the stages of their indexes, and what their scores are made
of.
"""

import pytest

from umls_reranker.calibration.features import FEATURES, inputs_of
from umls_reranker.lists.index_scores import INDEX_SCORES, IndexScore
from umls_reranker.pipeline.recipe import Recipe
from umls_reranker.pipeline.stages import planned_stages
from umls_reranker.retrieval.retrievers import RETRIEVERS, RetrievalMethod, register_retriever

OF_ENCODER = {
    "encoder",
    "encoder_revision",
    "encoder_pooling",
    "encoder_max_length",
    "encoder_dtype",
}


class Other(RetrievalMethod):
    name = "other"
    help = "something else"


@pytest.fixture(autouse=True)
def restored():
    """What a test registers is forgotten."""
    yield
    for registry in (RETRIEVERS, INDEX_SCORES, FEATURES):
        registry.pop("other", None)


def plan(tmp_path, names, steps=5):
    recipe = Recipe.from_values(
        {"retrievers": names, "encoder_training_steps": steps, "global_batch_size": 64}
    )
    return planned_stages(recipe, tmp_path, {"MRCONSO": "1", "corpus": "2"})


@pytest.mark.parametrize("trained", [{"encoder"}, set()], ids=["trained", "not trained"])
def test_indexes_are_made_from_what_retrievers_declare(tmp_path, trained):
    stages = plan(
        tmp_path, ["nearest_mentions", "lexical", "context", "dense"], 5 if trained else 0
    )
    made_from = {
        "index": ({"index_factory"}, {"concepts", "vectors"} | trained),
        "lexical": ({"schema_version"}, {"concepts"}),
        "mention_index": (OF_ENCODER, {"concepts", "mentions"} | trained),
    }
    assert {
        name: ({*stages[name].content["settings"]}, {*stages[name].content["inputs"]})
        for name in made_from
    } == made_from
    order = ["vectors", "index", "lexical", "mention_index", "lists", "pairs"]
    assert [name for name in stages if name in order] == order
    searched = {"index", "lexical", "mention_index", "mentions"}
    assert {*stages["lists"].content["inputs"]} == searched and {
        *stages["pairs"].content["inputs"]
    } == {"lists"}


def test_a_score_of_a_retriever_that_reads_context_needs_context():
    class InContext(Other):
        reads_context = True
        score_name = "other"

    assert inputs_of(["retrieval", "context", "lexical"]) == [
        *("retrieval_score", "context", "context_score", "lexical_score")
    ]
    register_retriever(InContext, IndexScore("something else", reads_context=True))
    assert inputs_of(["other"]) == ["context", "other_score"]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"name": "lexical"}, "the retriever lexical already has the name 'lexical'"),
        ({"folder": "index"}, "the retriever dense already has the folder 'index'"),
        ({"score_name": "context"}, "the retriever context already has the score_name 'context'"),
        (
            {"inputs": ("concepts", "pairs")},
            r"other: unknown inputs \['pairs'\]; choose from concepts, mentions",
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused(declared, message):
    with pytest.raises(ValueError, match=message):
        register_retriever(type("Declared", (Other,), declared))
    assert "other" not in RETRIEVERS
