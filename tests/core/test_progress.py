"""What is shown during work: progress bars, and one line per stage of a run."""

import io
import sys

import pytest

from umls_reranker.core import progress as shown
from umls_reranker.core.progress import StageLines, progress


class Screen(io.StringIO):
    """Standard error, a terminal or not."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def screen(monkeypatch):
    def make(terminal):
        monkeypatch.setattr(sys, "stderr", made := Screen(terminal))
        return made

    return make


def test_a_bar_in_a_log_is_lines_and_only_of_long_work(screen, monkeypatch):
    log = screen(terminal=False)
    with progress(total=3, desc="short", unit=" names") as bar:
        bar.update(3)
    assert log.getvalue() == ""
    monkeypatch.setattr(shown, "SECONDS_BETWEEN_LINES", 0.0)
    with progress(total=2, desc="long", unit=" names") as bar:
        bar.update(1)
        bar.update(1)
    lines = log.getvalue().splitlines()
    states = [line.rpartition("[")[0] for line in lines]
    assert "\r" not in log.getvalue() and len(states) == len(set(states))
    assert lines[-1].startswith("long: 100%") and "2.00/2.00" in lines[-1]


def test_a_bar_inside_another_adds_nothing_but_its_lines(screen, monkeypatch):
    log = screen(terminal=False)
    monkeypatch.setattr(shown, "SECONDS_BETWEEN_LINES", 0.0)
    for _ in progress(range(2), desc="outer"):
        for _ in progress(range(2), desc="inner"):
            pass
    lines = log.getvalue().splitlines()
    assert lines and all(line.startswith(("outer: ", "inner: ")) for line in lines), lines


def test_no_thread_adds_lines_to_a_log(screen):
    # What the monitoring thread of tqdm looks for: a bar that has not looked at the clock for a while.
    screen(terminal=False)
    with progress(total=10_000, desc="long") as bar:
        bar.update(5_000)
        assert bar.miniters == 1


def test_a_bar_on_a_terminal_is_removed_at_its_end(screen):
    terminal = screen(terminal=True)
    with progress(total=1, desc="work") as bar:
        bar.update(1)
    assert "work" in terminal.getvalue() and "\n" not in terminal.getvalue()
    assert terminal.getvalue().rsplit("\r", 2)[1].strip() == ""


TITLES = {"read": "reading", "train": "training", "measure": "measuring"}


def stages(minutes):
    now = [0.0]
    lines = StageLines(TITLES, minutes, clock=lambda: now[0])

    def take(stage, seconds, worked=True):
        lines.begin(stage)
        now[0] += seconds
        lines.show()
        lines.end(worked)

    return take


def test_lines_of_stages_tell_the_time_left(screen):
    log = screen(terminal=False)
    take = stages({"read": 1, "train": 10, "measure": 2})
    take("read", 30)  # 90 seconds in place of 120, with the minute before
    take("train", 4000)
    take("measure", 5)
    assert [line.split() for line in log.getvalue().splitlines()] == [
        ["1/3", "reading", "0:30", "about", "9:00", "left"],
        ["2/3", "training", "1:06:40", "about", "11:22", "left"],
        ["3/3", "measuring", "0:05"],
    ]


def test_a_stage_that_had_nothing_to_do_says_nothing_about_the_machine(screen):
    log = screen(terminal=False)
    take = stages({"read": 1, "train": 10, "measure": 2})
    take("read", 1, worked=False)
    take("train", 300)
    assert [line.split() for line in log.getvalue().splitlines()] == [
        ["1/3", "reading", "0:01", "nothing", "to", "do"],
        ["2/3", "training", "5:00", "about", "1:05", "left"],
    ]


def test_without_minutes_nothing_is_said_of_the_time_left(screen):
    log = screen(terminal=False)
    stages({})("read", 61)
    assert log.getvalue().split() == ["1/3", "reading", "1:01"]


def test_on_a_terminal_a_line_is_redrawn(screen):
    terminal = screen(terminal=True)
    stages({"read": 1, "train": 10})("read", 15)
    begun, running, ended = terminal.getvalue().split("\r")[1:]
    assert begun.split() == ["1/3", "reading", "0:00", "about", "11:00", "left"]
    assert running.split() == ["1/3", "reading", "0:15", "about", "10:45", "left"]
    assert ended.split() == ["1/3", "reading", "0:15", "about", "6:15", "left"] and ended.endswith("\n")
