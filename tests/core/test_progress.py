"""Progress bars: few states in a log, and none of short work."""

import io
import sys

import pytest

from umls_reranker.core import script as shown
from umls_reranker.core.script import progress


@pytest.fixture
def screen(monkeypatch):
    def make(terminal):
        made = io.StringIO()
        made.isatty = lambda: terminal
        monkeypatch.setattr(sys, "stderr", made)
        return made

    return make


def test_a_bar_in_a_log_is_only_of_long_work(screen, monkeypatch):
    log = screen(terminal=False)
    with progress(total=3, desc="short", unit=" names") as bar:
        bar.update(3)
    assert log.getvalue() == ""
    monkeypatch.setattr(shown, "SECONDS_BETWEEN_LINES", 0.0)
    with progress(total=2, desc="long", unit=" names") as bar:
        bar.update(2)
    assert "long: 100%" in log.getvalue()


def test_a_bar_on_a_terminal_is_removed_at_its_end(screen):
    terminal = screen(terminal=True)
    with progress(total=1, desc="work") as bar:
        bar.update(1)
    assert "work" in terminal.getvalue() and "\n" not in terminal.getvalue()
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""


def test_bars_can_be_turned_off(screen, monkeypatch):
    terminal = screen(terminal=True)
    monkeypatch.setenv("UMLS_RERANKER_PROGRESS", "0")
    assert list(progress(range(2), desc="work")) == [0, 1] and terminal.getvalue() == ""
