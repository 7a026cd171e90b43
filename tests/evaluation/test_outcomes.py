from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from list_fixtures import make_lists
from outcome_fixtures import make_outcomes

from umls_reranker.calibration.decisions import CandidateScores, Decisions
from umls_reranker.core.errors import UserError
from umls_reranker.evaluation.metrics import SCHEMA, Outcomes


def assert_equal(left, right):
    for field in SCHEMA:
        a = getattr(left, field.name)
        b = getattr(right, field.name)
        if field.name == "types":
            assert [list(types) for types in a] == [list(types) for types in b]
        else:
            np.testing.assert_array_equal(a, b)


def test_outcomes_are_the_decisions_about_top_candidates():
    # The second candidate comes first; nothing is retrieved; and two probabilities of 1 hide which
    # is better.
    items = [[{"name": name, "cui": f"C{name}"} for name in names] for names in ("ab", "", "cd")]
    given = make_lists(
        ["x", "y", "z"], items, ["T047", None, "T121"], gold=[0, -1, 1], documents=["d", "d", "e"]
    )
    given = replace(given, parents={("C1", "Cb")})
    decided = Decisions(
        offsets=given.offsets,
        concepts=given.concepts,
        models=np.zeros(3, int),
        complete=np.ones(3, bool),
        missing={},
        scores=CandidateScores(
            np.zeros(4, np.float32),
            np.array([-1.0, 1.0, 40.0, 41.0]),
            np.array([0.25, 0.75, 1.0, 1.0]),
            np.full(4, np.nan),
        ),
        edges=np.array([[0.5, 0.6, 0.9]] * 3),
        accept_tier="high",
    )
    found = Outcomes.of(given, decided)
    np.testing.assert_array_equal(found.score, [0.75, np.nan, 1.0])
    np.testing.assert_array_equal(found.margin, [0.5, np.nan, 0.0])
    assert found.answer.tolist() == ["Cb", "", "Cd"] and found.rank.tolist() == [1, -1, 0]
    assert found.tier.tolist() == ["medium", "reject", "high"] and found.accepted.tolist() == [
        False,
        False,
        True,
    ]
    assert found.relation.tolist() == ["parent", "", ""]
    assert found.document.tolist() == ["d", "d", "e"] and list(found.types) == [
        ("T047",),
        (),
        ("T121",),
    ]


def test_what_is_saved_comes_back(tmp_path):
    outcomes = make_outcomes(
        5, score=np.array([0.1, np.nan, 0.3, 1.0, 0.0]), types=[["T047", "T121"], [], *[["T1"]] * 3]
    )
    outcomes.save(tmp_path / "outcomes.parquet")
    assert_equal(Outcomes.load(tmp_path / "outcomes.parquet"), outcomes)
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.parquet"]


def test_the_file_holds_no_text_of_a_vocabulary():
    assert set(SCHEMA.names).isdisjoint({"mention", "name", "left", "right"})


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "outcomes.parquet"
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"outcomes\.parquet"):
        Outcomes.load(path)
    make_outcomes(3).save(path)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"schema_version": "99"}), path)
    with pytest.raises(UserError, match="newer than umls_reranker"):
        Outcomes.load(path)
