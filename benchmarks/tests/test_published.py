"""Which mentions count in published tables, on a made-up test split."""

import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from umls_reranker.corpora.annotated_text import Mention
from umls_reranker.corpora.mention_files import SPLITS, write_mentions

sys.path.append(str(Path(__file__).parents[1]))

from published import figures

MEDIC = "D1|600001||flu\nD2||cold\n"
# Gold concepts of test mentions -> rank of the first correct answer.
TEST = [
    ((("D1",),), 0),
    ((("D2",),), -1),
    # Composite mentions; the third is in two parts, as it is split.
    ((("D1",), ("600001",)), 0),
    ((("D1",), ("600001",)), 0),
    # Not in MEDIC, whatever the run's dictionary has.
    ((("D3",),), 0),
    ((("D1",), ("D3",)), 0),
    ((("D1",), ()), -1),
    ((), -1),
]


def test_mentions_of_which_medic_lacks_an_id_do_not_count_in_published_tables(tmp_path):
    (tmp_path / "medic.txt").write_text(MEDIC)
    starts = [0, 1, 2, 2, 4, 5, 6, 7]
    mentions = [
        Mention("1", start, start + 1, "x", "", "", cuis, ())
        for start, (cuis, _) in zip(starts, TEST, strict=True)
    ]
    known = replace(mentions[0], text="y")
    others = [(split, known) for split in SPLITS if split != "test"]
    write_mentions([*others, *(("test", one) for one in mentions)], tmp_path / "run" / "mentions")
    outcomes = {
        "document": ["1"] * len(TEST),
        "mention_id": [str(number) for number in range(len(TEST))],
        "start": starts,
        "end": [start + 1 for start in starts],
        "rank": [rank for _, rank in TEST],
        "composite": [len(cuis) > 1 for cuis, _ in TEST],
        "tier": ["high"] * 4 + ["low"] * 4,
        "score": [0.5] * len(TEST),
    }
    (tmp_path / "run" / "report").mkdir()
    pq.write_table(pa.table(outcomes), tmp_path / "run" / "report" / "outcomes.parquet")
    counted = figures(tmp_path / "run", tmp_path / "medic.txt")
    assert (counted["mentions"], counted["mentions, as published"]) == (7, 3)
    assert (counted["acc@1"], counted["acc@1, as published"]) == (4 / 7, 2 / 3)
    assert counted["strict, as published"] == 1 / 3
    assert (counted["high"], counted["high, as published"]) == (0.5, 1)
