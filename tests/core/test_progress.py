"""Progress bars: few states in a log, and none of short work."""

import io
import sys

from umls_reranker.core import arrays as shown
from umls_reranker.core.arrays import progress


def test_a_bar_in_a_log_is_only_of_long_work(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress(total=3, desc="short", unit=" names") as bar:
        bar.update(3)
    assert log.getvalue() == ""
    monkeypatch.setattr(shown, "SECONDS_BETWEEN_LINES", 0.0)
    with progress(total=2, desc="long", unit=" names") as bar:
        bar.update(2)
    assert "long: 100%" in log.getvalue()
    monkeypatch.setenv("UMLS_RERANKER_PROGRESS", "0")
    before = log.getvalue()
    assert list(progress(range(2), desc="work")) == [0, 1] and log.getvalue() == before
