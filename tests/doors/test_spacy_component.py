"""The spaCy component: concepts of entities, one batch for many Docs, a pipeline to be saved."""

import configparser
import importlib
from types import SimpleNamespace

import pytest
from processes import ROOT

from umls_reranker.core.errors import UserError
from umls_reranker.linking.linked_concept import LinkedConcept

spacy = pytest.importorskip("spacy")


TEXT = "A cold is no renal failure. Another cold came."
PATTERNS = [{"label": "T047", "pattern": "cold"}, {"label": "KIDNEY", "pattern": "renal failure"}]


class CountingLinker:
    """Links every mention to two concepts, accepts "cold", and keeps what it was asked."""

    def __init__(self):
        self.calls = []
        known = {"T047": "T047", "Disease or Syndrome": "T047"}
        self.reranker = SimpleNamespace(
            thresholds=SimpleNamespace(hierarchy=SimpleNamespace(resolve=known.get))
        )

    def link_batch(self, mentions, documents, starts, entity_types):
        self.calls.append(list(zip(mentions, documents, starts, entity_types, strict=True)))
        return [[concept(mention, 1), concept(mention, 2)] for mention in mentions]


def concept(mention, rank):
    accepted = rank == 1 and mention == "cold"
    tier = "medium" if accepted else "low"
    candidate = {"preferred_name": mention.title(), "semantic_types": ("T047",)}
    return LinkedConcept(
        candidate, mention, f"C{len(mention)}", rank, 2.5, 1 / rank, 0.5, tier, accepted
    )


@pytest.fixture
def linker(monkeypatch):
    from umls_reranker.doors import spacy_component

    linker = CountingLinker()
    opened = []

    def from_pretrained(*arguments, **options):
        opened.append((arguments, options))
        return linker

    monkeypatch.setattr(spacy_component.ConceptLinker, "from_pretrained", from_pretrained)
    linker.opened = opened
    return linker


def pipeline(**config):
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(PATTERNS)
    nlp.add_pipe("umls_reranker", config={"model": "org/model", "index": "index", **config})
    return nlp


def test_entities_get_their_concepts(linker):
    nlp = pipeline(types={"KIDNEY": "Disease or Syndrome"})
    # A label that the model does not know says no type.
    nlp.get_pipe("entity_ruler").add_patterns([{"label": "X", "pattern": "came"}])
    doc = nlp(TEXT)
    kidney = ("renal failure", TEXT, 13, "Disease or Syndrome")
    assert linker.calls == [
        [("cold", TEXT, 2, "T047"), kidney, ("cold", TEXT, 36, "T047"), ("came", TEXT, 41, None)]
    ]
    # It is joined from the tokens each time, which takes long for a long Doc.
    assert len({id(text) for _, text, *_ in linker.calls[0]}) == 1
    first, second, third, _ = doc.ents
    assert [row["cui"] for row in second._.umls] == ["C13", "C13"]
    assert first._.umls[0] == {
        **{"cui": "C4", "name": "cold", "preferred_name": "Cold", "semantic_types": ["T047"]},
        **{
            "rank": 1,
            "logit": 2.5,
            "score": 1.0,
            "margin": 0.5,
            "tier": "medium",
            "accepted": True,
            "model_name": "all",
        },
        "scored": 0,
    }
    assert [entity.kb_id_ for entity in doc.ents] == ["C4", "", "C4", ""]
    assert third._.umls == first._.umls and third._.umls is not first._.umls
    assert doc[0:1]._.umls == []
    again = spacy.tokens.Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert [entity._.umls for entity in again.ents] == [entity._.umls for entity in doc.ents]


def test_an_abstention_takes_back_what_was_linked_before(linker):
    nlp = pipeline()
    doc = nlp.make_doc(TEXT + " \n " + "x" * 1_001)
    nlp.get_pipe("entity_ruler")(doc)
    end = len(doc)
    blank = spacy.tokens.Span(doc, end - 2, end - 1, label="T047")
    long = spacy.tokens.Span(doc, end - 1, end, label="T047")
    assert blank.text.isspace() and len(long.text) == 1_001
    doc.ents = [*doc.ents, blank, long]
    for entity in doc.ents:
        entity._.umls = [{"cui": "C0"}]
        for token in entity:
            token.ent_kb_id_ = "C0"
    with pytest.warns(UserWarning, match="^1 entities are not linked"):
        nlp.get_pipe("umls_reranker")(doc)
    assert [entity.kb_id_ for entity in doc.ents] == ["C4", "", "C4", "", ""]
    assert [[row["cui"] for row in entity._.umls] for entity in doc.ents] == [
        ["C4"] * 2,
        ["C13"] * 2,
        ["C4"] * 2,
        [],
        [],
    ]


def test_many_docs_are_linked_in_one_batch_and_keep_their_order(linker):
    nlp = pipeline(top=1)
    texts = [TEXT, "No entity here.", "", "One cold."] * 2
    docs = list(nlp.pipe(texts, batch_size=4))
    assert [doc.text for doc in docs] == texts
    assert [len(call) for call in linker.calls] == [4, 4]
    assert [len(doc.ents) for doc in docs] == [3, 0, 0, 1] * 2
    assert {len(entity._.umls) for doc in docs for entity in doc.ents} == {1}


def test_a_saved_pipeline_opens_the_same_model(linker, tmp_path):
    nlp = pipeline(revision="v1", types={"KIDNEY": "T047"}, device="cpu", top=3)
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    assert (
        linker.opened[0]
        == linker.opened[1]
        == (("org/model", "index", "v1"), {"device": "cpu", "dtype": "auto"})
    )
    assert again.get_pipe("umls_reranker").types == {"KIDNEY": "T047"}
    assert again(TEXT).ents[0]._.umls == nlp(TEXT).ents[0]._.umls


def test_a_config_that_will_not_do_is_refused(linker):
    for candidates in (None, "sapbert"):
        with pytest.raises(UserError, match="either index .* or candidates"):
            pipeline(index=candidates and "index", candidates=candidates)
    with pytest.raises(ValueError, match="modle"):
        pipeline(modle="x")


def test_the_entry_point_is_the_component_which_needs_a_model():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    entry = setup["options.entry_points"]["spacy_factories"].strip()
    module, _, name = entry.partition(" = ")[2].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    with pytest.raises(UserError, match="umls_reranker: .*model"):
        spacy.blank("en").add_pipe("umls_reranker")
