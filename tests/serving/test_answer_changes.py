from pathlib import Path
from types import SimpleNamespace

import pytest
from list_fixtures import write_lists

from umls_reranker.core.errors import UserError
from umls_reranker.corpora.mentions import RetiredCuis
from umls_reranker.pipeline.compare_answers import certificates_line
from umls_reranker.serving.answer_changes import Dictionaries, answer_changes
from umls_reranker.vocab.concepts import Concept, ConceptTable, concept_table, write_concepts
from umls_reranker.vocab.types import TypeHierarchy

FORMER = {"C0000001": ["cold"], "C0000002": ["heat"], "C0000003": ["a"], "C0000004": ["b"]}
NEW = {"C0000002": ["heat"], "C0000003": ["a", "cough"], "C0000005": ["fever"]}


def dictionary(folder, names):
    folder.mkdir()
    concepts = concept_table(
        Concept(cui, name, tuple(more)) for cui, (name, *more) in names.items()
    )
    write_concepts(concepts, TypeHierarchy.built_in(), folder)
    return ConceptTable.load(folder)


@pytest.fixture
def dictionaries(tmp_path):
    (tmp_path / "MRCUI.RRF").write_text(
        "C0000001|2026AA|SY|||C0000009||\nC0000009|2026AA|SY|||C0000002||\nC0000004|2026AA|DEL|||||\n"
    )
    return Dictionaries(
        dictionary(tmp_path / "former", FORMER),
        dictionary(tmp_path / "new", NEW),
        RetiredCuis.read(tmp_path / "MRCUI.RRF"),
    )


def answers(path, tops):
    """Ranked rows with these top candidates: id, name, accepted."""
    rows = [
        {"doc_id": "d", "mention_id": str(number), "ranked": [top] if top else []}
        for number, top in enumerate(tops)
    ]
    write_lists(path, rows)
    return path


def top(cui, name="heat", accepted=True):
    return {"cui": cui, "name": name, "accepted": accepted}


CASES = [
    (top("C0000002"), top("C0000002"), None),
    (top("C0000001"), top("C0000002"), {"why": "merged", "merged_into": "C0000002"}),
    (top("C0000004"), top("C0000002"), {"why": "retired"}),
    (top("C0000002"), top("C0000005", "fever"), {"why": "new concept"}),
    (top("C0000002"), top("C0000003", "cough"), {"why": "new name"}),
    (top("C0000002"), top("C0000003", "A"), {"why": "ranking"}),
    (top("C0000002"), None, {"why": "ranking"}),
    (None, top("C0000005", "fever"), {"why": "new concept"}),
    (top("C0000002"), top("C0000002", accepted=False), {"why": "acceptance"}),
]


def test_each_change_has_its_reason(tmp_path, dictionaries):
    former = answers(tmp_path / "former.jsonl", [case[0] for case in CASES])
    new = answers(tmp_path / "new.jsonl", [case[1] for case in CASES])
    for number, (found, case) in enumerate(
        zip(answer_changes(former, new, dictionaries), CASES, strict=True)
    ):
        if case[2] is None:
            assert found is None
            continue
        cuis = [(item or {}).get("cui") for item in case[:2]]
        assert [found.pop(key) for key in ("former", "new")] == cuis
        assert found.pop("mention_id") == str(number)
        assert {key: found[key] for key in found if key not in ("doc_id", "accepted")} == case[2]


@pytest.mark.parametrize("count", [1, 3])
def test_answers_of_other_mentions_are_refused(tmp_path, dictionaries, count):
    former = answers(tmp_path / "former.jsonl", [None] * 2)
    new = answers(tmp_path / "new.jsonl", [None] * count)
    with pytest.raises(UserError, match="jsonl:[02]"):
        list(answer_changes(former, new, dictionaries))


def test_certificates_hold_for_the_index_of_their_lists_alone():
    model = SimpleNamespace(name="names", thresholds=SimpleNamespace(is_certified=True))
    calibration = SimpleNamespace(index_key="k", models=[model])
    for key, words in (("k", "its certificates hold"), ("other", "no certificate holds")):
        line = certificates_line("my_model", calibration, Path("index"), key)
        assert line.startswith(f"my_model: {words} for index (names")
