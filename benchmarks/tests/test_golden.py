"""How golden numbers are compared; what is recorded holds no names."""

import json
import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import golden
from golden import Figure, Golden, compare


def test_a_number_out_of_its_tolerance_fails_and_a_time_warns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(golden, "RECORD", tmp_path / "golden.json")
    work = Golden(tmp_path, tmp_path, tmp_path)

    def part(share, milliseconds, tiers):
        return lambda _: iter(
            [
                Figure("share", share, 0.1),
                Figure("ms", milliseconds, 1, is_timing=True),
                Figure("tiers", tiers, 0),
            ]
        )

    assert compare(work, [part(0.5, 3, ["high", "low"])], is_recorded=True)
    assert compare(work, [part(0.55, 9, ["high", "low"])], is_recorded=False)
    assert "| 6 | 1 | warning |" in capsys.readouterr().out
    assert not compare(work, [part(0.7, 3, ["high", "low"])], is_recorded=False)
    assert not compare(work, [part(0.5, 3, ["high", "high"])], is_recorded=False)

    def absent(work):
        yield Figure("rows", len(work.rows()), 0)

    assert compare(work, [absent], is_recorded=False)
    assert "skipped: umls_lists" in capsys.readouterr().out


def test_the_record_has_numbers_tiers_concept_ids_and_hashes_alone():
    record = json.loads(golden.RECORD.read_text(encoding="utf-8"))
    texts = {
        text for one in record.values() if isinstance(one["value"], list) for text in one["value"]
    }
    assert all(
        re.fullmatch("high|medium|low|reject|C[0-9]{7}|[0-9a-f]{64}", text)
        for text in texts
        if isinstance(text, str)
    )
