"""The micro-batcher around a reranker that notes its calls, and around a real one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_reranker import tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.serving.http import micro_batching
from umls_reranker.serving.http.micro_batching import MicroBatcher, QueueFull

LONG = 60_000


class Recorder:
    """Returns the call instead of a ranking; holds every batch until it is released."""

    def __init__(self, held=False):
        self.batches, self.started, self.go = [], threading.Semaphore(0), threading.Event()
        if not held:
            self.go.set()

    def rerank_batch(self, entities, candidates, entity_types, lefts, rights, exhaustive):
        self.exhaustive = exhaustive
        self.batches.append(entities)
        self.started.release()
        assert self.go.wait(30)
        if "bad" in entities:
            raise ValueError("entity is bad")
        return list(zip(entities, candidates, entity_types, lefts, rights, strict=True))


def hold_first(recorder, batcher):
    """Keep the worker busy with one mention, so that what comes after has to wait."""
    future = batcher.submit("first", ["a"])
    assert recorder.started.acquire(timeout=30)
    return future


def test_what_waits_is_ranked_in_one_batch_and_each_gets_its_own():
    recorder = Recorder(held=True)
    with MicroBatcher(recorder, deadline_ms=0) as batcher:
        first = hold_first(recorder, batcher)
        futures = [batcher.submit(f"m{i}", ["a", "b"], "T047", f"l{i}", f"r{i}") for i in range(5)]
        assert batcher.waiting == 5
        recorder.go.set()
        assert first.result(30) == ("first", ["a"], None, "", "")
        assert [future.result(30) for future in futures] == [
            (f"m{i}", ["a", "b"], "T047", f"l{i}", f"r{i}") for i in range(5)
        ]
    assert recorder.batches == [["first"], [f"m{i}" for i in range(5)]]


def test_each_mention_says_whether_all_its_candidates_are_scored():
    recorder = Recorder(held=True)
    with MicroBatcher(recorder, deadline_ms=0) as batcher:
        hold_first(recorder, batcher)
        for exhaustive in (False, True):
            batcher.submit("m", ["a"], exhaustive=exhaustive)
        recorder.go.set()
    assert recorder.exhaustive == [False, True]


def test_arguments_are_those_of_rerank_by_name_too():
    with MicroBatcher(Recorder(), deadline_ms=0) as batcher:
        assert batcher.rerank(candidates=["a"], entity="m", right="r") == ("m", ["a"], None, "", "r")
        with pytest.raises(TypeError, match="unexpected keyword argument 'lefts'"):
            batcher.rerank("m", ["a"], lefts="l")


@pytest.mark.parametrize(("mentions", "pairs"), [(2, 100), (100, 6)])
def test_a_full_batch_does_not_wait_for_the_deadline(monkeypatch, mentions, pairs):
    monkeypatch.setattr(micro_batching, "MAX_PAIRS", pairs)
    recorder = Recorder()
    with MicroBatcher(recorder, deadline_ms=LONG, max_mentions=mentions) as batcher:
        futures = [batcher.submit(name, ["a", "b", "c"]) for name in "mnop"]
        assert [future.result(30)[0] for future in futures] == list("mnop")
    assert recorder.batches == [["m", "n"], ["o", "p"]]


def test_a_list_over_the_limit_of_pairs_is_a_batch_of_its_own(monkeypatch):
    monkeypatch.setattr(micro_batching, "MAX_PAIRS", 3)
    recorder = Recorder(held=True)
    with MicroBatcher(recorder, deadline_ms=0) as batcher:
        hold_first(recorder, batcher)
        for name, pairs in (("small", 1), ("huge", 9), ("two", 2), ("one", 1), ("last", 1)):
            batcher.submit(name, ["a"] * pairs)
        recorder.go.set()
    assert recorder.batches == [["first"], ["small"], ["huge"], ["two", "one"], ["last"]]


def test_a_mention_alone_is_ranked_at_its_deadline():
    with MicroBatcher(Recorder(), deadline_ms=1) as batcher:
        assert batcher.rerank("m", [])[0] == "m"


def test_a_full_queue_is_refused():
    recorder = Recorder(held=True)
    with MicroBatcher(recorder, deadline_ms=0, queue_size=2) as batcher:
        hold_first(recorder, batcher)
        futures = [batcher.submit(name, ["a"]) for name in "mn"]
        with pytest.raises(QueueFull, match="2 mentions are already waiting"):
            batcher.submit("o", ["a"])
        recorder.go.set()
        assert [future.result(30)[0] for future in futures] == ["m", "n"]


def test_a_full_queue_holds_its_callers_back_when_asked_to():
    recorder = Recorder(held=True)
    with MicroBatcher(recorder, deadline_ms=0, queue_size=1, block=True) as batcher:
        hold_first(recorder, batcher)
        with ThreadPoolExecutor(4) as callers:
            futures = [callers.submit(batcher.rerank, name, ["a"]) for name in "mnop"]
            assert batcher.waiting <= 1
            recorder.go.set()
            assert [future.result(30)[0] for future in futures] == list("mnop")
            assert batcher.waiting == 0


def test_a_mention_that_fails_fails_alone():
    recorder = Recorder(held=True)
    with MicroBatcher(recorder, deadline_ms=0) as batcher:
        hold_first(recorder, batcher)
        futures = {name: batcher.submit(name, ["a"]) for name in ("m", "bad", "n")}
        recorder.go.set()
        assert futures["m"].result(30)[0] == "m" and futures["n"].result(30)[0] == "n"
        with pytest.raises(ValueError, match="entity is bad"):
            futures["bad"].result(30)
        assert batcher.rerank("after", ["a"])[0] == "after"


def test_an_iterator_of_candidates_outlives_a_batch_that_fails(tmp_path):
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path / "model"), device="cpu")
    with MicroBatcher(reranker, deadline_ms=LONG, max_mentions=2) as batcher:
        good, bad = batcher.submit("cold", iter(["common cold", "flu"])), batcher.submit(" ", ["a"])
        assert {item.name for item in good.result(30)} == {"common cold", "flu"}
        with pytest.raises(ValueError, match="entity is blank"):
            bad.result(30)


def test_a_cancelled_mention_is_not_ranked():
    recorder = Recorder(held=True)
    with MicroBatcher(recorder, deadline_ms=0) as batcher:
        hold_first(recorder, batcher)
        futures = [batcher.submit(name, ["a"]) for name in "mn"]
        assert futures[0].cancel()
        recorder.go.set()
    assert recorder.batches == [["first"], ["n"]]


def test_closing_finishes_what_waits_and_refuses_the_rest():
    recorder = Recorder()
    batcher = MicroBatcher(recorder, deadline_ms=LONG)
    future = batcher.submit("m", ["a"])
    batcher.close()
    assert future.result(0)[0] == "m"
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit("n", ["a"])
    batcher.close()


@pytest.mark.parametrize("limits", [{"deadline_ms": -1}, {"queue_size": 0}, {"max_mentions": 0}])
def test_senseless_limits_are_refused(limits):
    with pytest.raises(ValueError, match="at least"):
        MicroBatcher(Recorder(), **limits)


def test_threads_get_what_single_calls_give(tmp_path):
    reranker = UMLSReranker.from_pretrained(tiny_reranker(tmp_path / "model"), device="cpu", dtype="float32")
    mentions = [f"cold {i}" for i in range(24)]
    names = ["common cold", "cold temperature", "cough"]
    with MicroBatcher(reranker, deadline_ms=2, max_mentions=5) as batcher, ThreadPoolExecutor(8) as callers:
        joined = list(callers.map(lambda mention: batcher.rerank(mention, names), mentions))
    for mention, ranked in zip(mentions, joined, strict=True):
        alone = reranker.rerank(mention, names)
        assert [item.name for item in ranked] == [item.name for item in alone]
        assert [item.logit for item in ranked] == pytest.approx([item.logit for item in alone], abs=1e-5)
    assert reranker.get_statistics()["mentions"] == 48
