"""Figures of a working reranker, by hand; drift, and how often it is reported where there is none."""

import errno
import io
import json
import runpy
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from outcome_fixtures import make_outcomes

from umls_reranker.calibration.thresholds import TIERS
from umls_reranker.core.errors import UserError
from umls_reranker.serving.monitoring.figures import MOST_TYPES, OTHER_TYPES, Top
from umls_reranker.serving.monitoring.labels import LabelledAnswers, level_of_look
from umls_reranker.serving.monitoring.monitor import LogFile, Monitor
from umls_reranker.serving.monitoring.reference import (
    NO_CANDIDATES,
    SMALLEST_PSI,
    Distribution,
    Drift,
    Reference,
    chi_square_tail,
)

NOTHING = {
    "mentions": 0,
    "without_candidates": 0,
    "candidates": 0,
    "truncated_pairs": 0,
    "inputs": {},
    "high_confidence_share": None,
    "tier_shares": dict.fromkeys(TIERS),
    "accepted_share": None,
    "abstained_share": None,
    "mean_top_score": None,
    "mean_margin": None,
}
FIGURES = {"mean_top_score": {"value": 0.7, "low": 0.6, "high": 0.8, "population": "400 test mentions"}}


def make_reference(outcomes=None):
    outcomes = outcomes or make_outcomes(4000)
    return Reference.fit(outcomes.score, outcomes.types, outcomes.document, FIGURES, 0.95)


def feed(monitor, outcomes):
    for row in range(len(outcomes)):
        score = float(outcomes.score[row])
        tier, accepted = str(outcomes.tier[row]), bool(outcomes.accepted[row])
        top = None if np.isnan(score) else Top(score, score / 2, tier, accepted)
        monitor.record(outcomes.types[row], 5, top)


# Figures


def test_a_new_monitor_has_counts_of_zero_and_no_means():
    assert Monitor().totals() == NOTHING | {"per_type": {}}


def test_the_table_shows_what_decided_if_inputs_were_missing():
    table = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "monitor.py"))["table"]
    reference = SimpleNamespace(figures=defaultdict(lambda: {"value": 0.7, "low": 0.6, "high": 0.8}))
    monitor = Monitor()
    monitor.record([], 3, Top(0.9, 0.5, "high", True))
    none_fitted = {"fitted_mentions": 0}
    assert "inputs" not in table(monitor.to_dict() | none_fitted, reference)
    monitor.record([], 2, Top(0.4, 0.2, "medium", True), "names, no type")
    lines = [line.split() for line in table(monitor.to_dict() | none_fitted, reference).splitlines()]
    assert ["all", "1"] in lines and ["names,", "no", "type", "1"] in lines


def test_figures_by_hand():
    monitor = Monitor()
    monitor.record(["T047"], 3, Top(0.9, 0.5, "high", True))
    monitor.record(["T047", "T121"], 2, Top(0.4, 0.2, "medium", True))
    monitor.record([], 4, Top(0.1, -0.1, "reject", False), "names")
    monitor.record(["T121"], 0, None)
    monitor.add_truncated(2)
    monitor.add_truncated(0)
    figures = monitor.totals()
    assert list(figures["per_type"]) == ["T047", "T121"]
    disease, drug = figures.pop("per_type").values()
    assert figures == {
        "mentions": 4,
        "without_candidates": 1,
        "candidates": 9,
        "truncated_pairs": 2,
        "inputs": {"all": 3, "names": 1},
        "high_confidence_share": 0.25,
        "tier_shares": {"high": 0.25, "medium": 0.25, "low": 0.0, "reject": 0.25},
        "accepted_share": 0.5,
        "abstained_share": 0.5,
        "mean_top_score": pytest.approx(1.4 / 3),
        "mean_margin": pytest.approx(0.6 / 3),
    }
    assert (disease["mentions"], disease["candidates"], disease["high_confidence_share"]) == (2, 5, 0.5)
    assert (drug["mentions"], drug["without_candidates"], drug["accepted_share"]) == (2, 1, 0.5)
    assert (drug["mean_top_score"], drug["mean_margin"]) == (0.4, 0.2)


def test_results_of_a_reranker_are_taken_as_they_are():
    monitor = Monitor()
    best = SimpleNamespace(score=0.9, margin=0.5, tier="high", accepted=True, inputs="names")
    monitor.add([best, best], ["T047"])
    monitor.add([])
    figures = monitor.totals()
    assert (figures["mentions"], figures["candidates"], figures["accepted_share"]) == (2, 2, 0.5)


def test_only_mentions_without_candidates_leave_no_mean():
    monitor = Monitor()
    monitor.record([], 0, None)
    figures = monitor.totals()
    assert (figures["mean_top_score"], figures["mean_margin"], figures["abstained_share"]) == (None, None, 1.0)


def test_a_type_given_twice_counts_once():
    monitor = Monitor()
    monitor.record(["T047", "T047"], 1, Top(0.9, 0.5, "high", True))
    assert monitor.totals()["per_type"]["T047"]["mentions"] == 1


def test_a_window_forgets_and_the_totals_do_not():
    monitor = Monitor(window=200)
    for score in (0.1, 0.9):
        for _ in range(200):
            monitor.record(["T047"], 1, Top(score, 0.0, "low", False))
    state = monitor.to_dict()
    assert state["mean_top_score"] == pytest.approx(0.5)
    assert state["window"]["mean_top_score"] == pytest.approx(0.9) and state["window"]["mentions"] == 200
    # A slice of ten goes when a new one is begun: the sliding window holds the latest 191 to 200 mentions.
    monitor.record(["T121"], 1, Top(0.9, 0.0, "low", False))
    assert monitor.to_dict()["window"]["mentions"] == 191
    assert set(monitor.to_dict()["window"]["per_type"]) == {"T047", "T121"}


def test_memory_is_bounded_whatever_types_are_sent():
    monitor = Monitor(window=200)
    for number in range(2 * MOST_TYPES):
        monitor.record([f"T{number}"], 1, Top(0.5, 0.0, "low", False))
    per_type = monitor.totals()["per_type"]
    assert len(per_type) == MOST_TYPES + 1 and per_type[OTHER_TYPES]["mentions"] == MOST_TYPES
    assert len(monitor._slices) == 20


def test_reset_starts_anew():
    monitor = Monitor(make_reference(), window=200)
    feed(monitor, make_outcomes(250))
    monitor.add_truncated(1)
    monitor.reset()
    assert monitor.totals() == NOTHING | {"per_type": {}}
    assert (monitor.to_dict()["drift"], monitor.to_dict()["windows"]) == ({}, 0)


def test_no_mention_is_lost_between_threads():
    monitor = Monitor(make_reference(), window=200)

    def work(_):
        for _ in range(500):
            monitor.record(["T047"], 2, Top(0.5, 0.25, "medium", True))
            monitor.add_truncated(1)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    figures = monitor.to_dict()
    assert (figures["mentions"], figures["candidates"], figures["truncated_pairs"]) == (4000, 8000, 4000)
    assert figures["per_type"]["T047"]["mentions"] == 4000 and figures["mean_top_score"] == 0.5
    assert figures["windows"] == 20


@pytest.mark.parametrize("window", [199, 210, 0])
def test_a_window_that_cannot_be_cut(window):
    with pytest.raises(ValueError, match="must be a multiple of 20 and 200 or more"):
        Monitor(window=window)


# Reference and drift


def test_the_reference_comes_back_from_json(tmp_path):
    scores = np.append(make_outcomes(399).score, np.nan)
    reference = make_reference(make_outcomes(400, score=scores))
    path = tmp_path / "reference.json"
    path.write_text(json.dumps(reference.to_dict()))
    assert Reference.load(path) == reference
    assert sum(reference.scores.counts) == 400 and reference.scores.counts[-1] == 1
    assert reference.scores.cells[-1] == NO_CANDIDATES and reference.types.cells == ("T047", "T121", "other")
    assert reference.score_cell(None) == 10 and reference.score_cell(0.0) == 0 and reference.score_cell(1.0) == 9
    assert [reference.type_cell(types) for types in (["T121", "T047"], ["T999"], [])] == [1, 2, 2]


def test_the_reference_puts_scores_where_its_counts_have_them():
    outcomes = make_outcomes(1000, score=np.round(make_outcomes(1000).score, 1))
    reference = make_reference(outcomes)
    counts = np.zeros(len(reference.scores.cells), int)
    for score in outcomes.score.tolist():
        counts[reference.score_cell(score)] += 1
    assert tuple(counts) == reference.scores.counts


def test_a_reference_that_cannot_be_read(tmp_path):
    path = tmp_path / "reference.json"
    with pytest.raises(UserError, match=r"reference\.json is missing; umls-reranker evaluate writes it"):
        Reference.load(path)
    path.write_text('{"schema_version": 2}')
    with pytest.raises(UserError, match="schema_version 2"):
        Reference.load(path)
    path.write_text('{"schema_version": 1, "scores": {}}')
    with pytest.raises(UserError, match="is damaged"):
        Reference.load(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["scores"]["counts"].pop(),
        lambda state: state["scores"]["cells"].pop(),
        lambda state: state["score_edges"].reverse(),
        lambda state: state["score_edges"].__setitem__(0, float("nan")),
        lambda state: state["scores"].update(counts=["many"] * 11),
        lambda state: state["types"].update(cells=[], counts=[]),
        lambda state: state["types"].update(scale="1"),
        lambda state: state["types"].update(degrees=0),
        lambda state: state.update(types=[]),
        lambda state: state.update(figures=[]),
        lambda state: state["figures"].update(mean_margin=0.3),
        lambda state: state.update(target_precision="0.95"),
        lambda state: state.update(target_precision=None),
        lambda state: state.update(more=1),
    ],
)
def test_a_malformed_reference_is_refused_when_it_is_loaded(tmp_path, damage):
    path = tmp_path / "reference.json"
    state = json.loads(json.dumps(make_reference().to_dict()))
    damage(state)
    path.write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"reference\.json is damaged .*run umls-reranker evaluate again"):
        Reference.load(path)


@pytest.mark.parametrize("text", ["[]", "7", "[" * 100_000, '{"a":' * 100_000, "1" * 5_000])
def test_a_reference_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "reference.json").write_text(text)
    with pytest.raises(UserError, match=r"reference\.json"):
        Reference.load(tmp_path / "reference.json")


def test_independent_mentions_have_the_textbook_test():
    rng = np.random.default_rng(0)
    counts = Distribution.fit("abcd", rng.integers(0, 4, 8000), np.arange(8000))
    assert counts.scale == pytest.approx(1.0, abs=0.05) and counts.degrees == pytest.approx(3.0, abs=0.05)
    from scipy.stats import chi2_contingency

    window = np.array([300, 250, 250, 200])
    expected = chi2_contingency(np.stack([counts.counts, window]))
    found = Distribution(counts.cells, counts.counts, 1.0, 3.0).drift(window)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)


@pytest.mark.parametrize("degrees", [0.05, 1.0, 2.7, 80.0, 5000.0])
def test_the_chi_square_tail_is_that_of_scipy(degrees):
    from scipy.stats import chi2

    for x in (0.0, 1e-9, 0.5, 3.0, 50.0, 82.0, 300.0, 4900.0, 5300.0):
        expected = chi2.sf(x, degrees)
        assert chi_square_tail(x, degrees) == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_documents_of_one_mind_count_once():
    # Ten mentions a document, all alike: the design effect is ten.
    cells = np.repeat(np.random.default_rng(0).integers(0, 4, 800), 10)
    found = Distribution.fit("abcd", cells, np.arange(8000) // 10)
    assert found.scale == pytest.approx(10, rel=0.1)


def test_stability_index_by_hand():
    found = Distribution(("a", "b"), (50, 50), 1.0, 1.0).drift(np.array([90, 10]))
    p, q = np.array([50.5, 50.5]) / 101, np.array([90.5, 10.5]) / 101
    assert found.psi == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert (found.cell, found.share, found.reference_share) == ("a", 0.9, 0.5)


def test_all_looks_together_spend_alpha():
    assert sum(level_of_look(0.05, look) for look in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize(("alpha", "is_told"), [(0.1, False), (0.2, True)])
def test_drift_and_labels_share_alpha(monkeypatch, alpha, is_told):
    # Of 0.1 the first look at the labels may spend 0.025, and each test of the first window 0.0125.
    monitor = Monitor(make_reference(), window=200, alpha=alpha)
    for number in range(25):
        # If 95 % are right, 21 or fewer of 25 are with probability 0.034.
        monitor.add_label(0.97, "high", number < 21)
    drift = Drift(psi=1.0, p_value=0.02, cell="T047", share=0.9, reference_share=0.5)
    monkeypatch.setattr(Distribution, "drift", lambda *_: drift)
    feed(monitor, make_outcomes(200))
    assert [alarm.kind for alarm in monitor.alarms] == ["precision", "scores", "types"] * is_told


TYPES = [f"T{number}" for number in range(5)]


def clustered(rng, documents):
    """Scores and numbers of types of documents that each have a level and a favorite; 12 mentions a document."""
    level = rng.normal(0, 1.2, documents)[:, None]
    score = 1 / (1 + np.exp(-(level + rng.normal(0.5, 1, (documents, 12)))))
    favorite = rng.integers(0, 5, documents)[:, None]
    kind = np.where(rng.random((documents, 12)) < 0.6, favorite, rng.integers(0, 5, (documents, 12)))
    return score.ravel(), kind.ravel()


def reference_of(score, kind):
    types = [[TYPES[number]] for number in kind.tolist()]
    return Reference.fit(score, types, np.arange(len(score)) // 12, FIGURES, 0.95)


def counts_of(reference, score, kind):
    """What `Monitor.record` would count of scores and types, at once."""
    places = np.array([reference.type_cell([name]) for name in TYPES])
    cells = np.searchsorted(reference.score_edges, score, side="right"), places[kind]
    shapes = reference.scores, reference.types
    return [np.bincount(cell, minlength=len(shape.cells)) for cell, shape in zip(cells, shapes, strict=True)]


def test_false_alarms_of_drift_keep_to_alpha(monkeypatch):
    """Monitors of ten windows each, where nothing has moved, every one with a reference of its own."""
    # Without the floor of the index, so that the test alone has to keep the promise.
    monkeypatch.setattr("umls_reranker.serving.monitoring.monitor.SMALLEST_PSI", 0.0)
    rng = np.random.default_rng(0)
    monitors = alarmed = 0
    for _ in range(100):
        reference = reference_of(*clustered(rng, 150))
        # Half of it for drift.
        monitor = Monitor(reference, window=600, alpha=0.4)
        for _ in range(10):
            monitor._scores, monitor._types = counts_of(reference, *clustered(rng, 50))
            monitor._in_window = 600
            monitor._end_window()
        monitors, alarmed = monitors + 1, alarmed + bool(monitor.alarms)
    # More than 30 of 100 has a probability below 1 % where one in five is promised.
    assert alarmed / monitors <= 0.3


def test_mentions_taken_as_independent_would_break_that_guarantee():
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(40):
        reference = reference_of(*clustered(rng, 150))
        counts = counts_of(reference, *clustered(rng, 50))[0]
        cells = len(counts) - 2
        broken += (
            Distribution(reference.scores.cells, reference.scores.counts, 1.0, cells).drift(counts).p_value < 0.05
        )
    assert broken > 15


def test_drift_of_scores_is_told_once_in_one_sentence():
    log = io.StringIO()
    monitor = Monitor(make_reference(), window=400, log=log)
    feed(monitor, make_outcomes(400, seed=5))
    assert monitor.alarms == []
    moved = make_outcomes(800, seed=6)
    feed(monitor, make_outcomes(800, seed=6, score=moved.score**3, types=moved.types))
    (alarm,) = monitor.alarms
    assert (alarm.kind, alarm.mentions) == ("scores", 800)
    assert alarm.sentence.startswith("the top scores of mentions 401 to 800 differ from the model's test split")
    assert alarm.sentence.endswith("if candidates or texts have changed permanently, calibrate again")
    assert "50% are scores of 0.000 to 0.334, 10% in the test split" in alarm.sentence and "\n" not in alarm.sentence
    drift = monitor.to_dict()["drift"]["scores"]
    assert drift["psi"] > SMALLEST_PSI and drift["p_value"] < 1e-6
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["window", "alarm", "window", "window"]
    assert events[0]["figures"]["mentions"] == 400


class FillingDisk(io.StringIO):
    """A log on a disk that is full at times."""

    full = False

    def flush(self):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, text):
        self.flush()
        return super().write(text)


def test_a_log_that_cannot_be_written_stops_nothing():
    log = FillingDisk()
    monitor = Monitor(make_reference(), window=400, log=log)
    feed(monitor, make_outcomes(400, seed=5))
    log.full = True
    with pytest.warns(UserWarning, match="log cannot be written .*No space left on device.*; monitoring continues"):
        feed(monitor, make_outcomes(400, seed=6))
    moved = make_outcomes(400, seed=7)
    with warnings.catch_warnings():
        # Reported once; later ones are counted.
        warnings.simplefilter("error")
        feed(monitor, make_outcomes(400, seed=7, score=moved.score**3))
        log.full = False
        feed(monitor, make_outcomes(400, seed=8))
    state = monitor.to_dict()
    assert (state["windows"], state["mentions"], state["log_failures"]) == (4, 1600, 2)
    assert [alarm["kind"] for alarm in state["alarms"]] == ["scores"]
    # The log resumes with the first window that finds room.
    assert [json.loads(line)["window"] for line in log.getvalue().splitlines()] == [1, 4]


def test_each_line_of_a_log_says_when_and_of_which_model_and_monitor_it_is():
    log = io.StringIO()
    before = datetime.now(timezone.utc)
    for model in ("v1.0.0", "v1.0.0", "v1.1.0"):
        moved = make_outcomes(400, seed=7)
        feed(Monitor(make_reference(), window=400, log=log, model=model), make_outcomes(400, score=moved.score**3))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["alarm", "window"] * 3
    assert [line["model"] for line in lines] == ["v1.0.0"] * 4 + ["v1.1.0"] * 2
    # A restart begins again at window 1, under another start.
    assert len({line["since"] for line in lines}) == 3 and {line.get("window") for line in lines} == {None, 1}
    times = [datetime.fromisoformat(line[key]) for line in lines for key in ("since", "time")]
    assert times[0] >= before and times[0].utcoffset() == timedelta(0)
    assert all(since < time for since, time in zip(times[::2], times[1::2], strict=True))


def test_a_log_file_that_was_moved_is_made_again(tmp_path):
    path = tmp_path / "logs" / "windows.jsonl"
    monitor = Monitor(window=200, log=LogFile(path))
    for former in ("first", "second"):
        feed(monitor, make_outcomes(200))
        path.parent.rename(tmp_path / former)
    feed(monitor, make_outcomes(200))
    files = [tmp_path / "first" / path.name, tmp_path / "second" / path.name, path]
    assert [json.loads(file.read_text())["window"] for file in files] == [1, 2, 3]
    assert monitor.to_dict()["log_failures"] == 0


def test_half_a_line_does_not_swallow_the_next(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "windows.jsonl"
    monitor = Monitor(window=200, log=LogFile(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.warns(UserWarning, match="cannot be written"):
            feed(monitor, make_outcomes(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    feed(monitor, make_outcomes(200))
    half, whole = path.read_text().splitlines()
    assert len(half) == 100 and json.loads(whole)["window"] == 2


def test_a_warning_turned_into_an_error_leaves_the_counts_whole():
    log = FillingDisk()
    log.full = True
    monitor = Monitor(window=200, log=log)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="cannot be written"):
            feed(monitor, make_outcomes(200))
    feed(monitor, make_outcomes(200))
    assert (monitor.to_dict()["windows"], monitor.to_dict()["mentions"]) == (2, 400)


def test_drift_of_types():
    monitor = Monitor(make_reference(), window=400)
    feed(monitor, make_outcomes(400, seed=5, types=[["T121"]] * 400))
    (alarm,) = monitor.alarms
    assert alarm.kind == "types" and "0% are T047, 75% in the test split" in alarm.sentence


def test_what_is_left_of_a_log_is_tested_if_it_is_enough():
    for mentions, windows in ((199, 0), (200, 1), (400, 1), (650, 2)):
        monitor = Monitor(make_reference(), window=400)
        feed(monitor, make_outcomes(mentions, seed=5))
        monitor.finish()
        assert monitor.to_dict()["windows"] == windows


def test_a_model_folder_without_a_reference_is_watched_without_drift(tmp_path):
    monitor = Monitor.of_model(tmp_path, window=200)
    feed(monitor, make_outcomes(200))
    assert (monitor.to_dict()["windows"], monitor.to_dict()["drift"], monitor.alarms) == (1, {}, [])
    (tmp_path / "reference.json").write_text(json.dumps(make_reference().to_dict()))
    assert Monitor.of_model(tmp_path).reference == make_reference()


# Labels


def test_precision_of_the_tiers_by_labels():
    monitor = Monitor(make_reference())
    for right in [True] * 9 + [False]:
        monitor.add_label(0.9, "high", right)
    monitor.add_label(0.5, "medium", False)
    labelled = monitor.to_dict()["labelled"]
    assert labelled["labels"] == 11 and labelled["tiers"]["low"] == {"labels": 0, "precision": None}
    precision = labelled["tiers"]["high"]["precision"]
    # Clopper and Pearson's 95 % interval of 9 in 10.
    assert (precision["value"], precision["low"], precision["high"]) == (
        0.9,
        pytest.approx(0.5550, abs=1e-4),
        pytest.approx(0.9975, abs=1e-4),
    )
    assert labelled["ece"]["low"] <= labelled["ece"]["value"] <= labelled["ece"]["high"]
    assert Monitor().to_dict()["labelled"]["ece"] is None


def test_a_broken_guarantee_of_the_high_tier_is_told():
    monitor = Monitor(make_reference())
    for number in range(100):
        monitor.add_label(0.97, "high", number % 4 > 0)
    (alarm, *_) = monitor.alarms
    assert alarm.kind == "precision"
    assert (
        "answers of the high tier are correct (upper bound" in alarm.sentence and "95% is guaranteed" in alarm.sentence
    )


def test_the_promise_is_tested_at_each_doubling_of_the_labels():
    answers = LabelledAnswers(0.95, 0.05)
    told = [number for number in range(1, 201) if answers.add(0.97, "high", False)]
    assert told == [25, 50, 100, 200]
    # With 97.5 %, 20 right ones in 25 are at most 93.2 % and 21 at most 95.5 %.
    for right, is_told in ((20, True), (21, False)):
        answers = LabelledAnswers(0.95, 0.05)
        told = [answers.add(0.97, "high", number < right) for number in range(25)]
        assert any(told) == is_told


def test_a_kept_promise_is_rarely_called_broken():
    rng = np.random.default_rng(0)
    called = 0
    for _ in range(100):
        monitor = Monitor(alpha=0.4)
        for right in rng.random(400) < 0.95:
            monitor.add_label(0.97, "high", right)
        called += bool(monitor.alarms)
    assert called <= 30
