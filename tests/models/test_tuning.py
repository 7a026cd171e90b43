"""The token budget: measured once on real work, remembered, and never a reason to fail."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from umls_reranker.models import tuning
from umls_reranker.models.tuning import CHOICES, ROUNDS, TokenBudget, memory_file

LONG = np.full(60_000, 20)
TRIALS = ROUNDS * len(CHOICES["cpu"])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def network():
    return SimpleNamespace(
        device=torch.device("cpu"), backend="torch", precision="float32", shape="bert 2x32x64", padded=False
    )


def work(budget, monkeypatch, speeds):
    """Do the planned parts of a large call at given speeds in tokens a second; the parts' budgets."""
    clock = [0.0]
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: clock[0])
    plan = budget.plan(LONG)
    for rows, tokens in plan:
        count = int(LONG[rows].sum())
        with budget.timed(tokens, count):
            clock[0] += count / speeds.get(tokens, 1_000)
    return [tokens for _, tokens in plan]


def test_the_first_large_call_tries_every_choice_and_settles_on_the_fastest(network, monkeypatch):
    budget = TokenBudget(network)
    assert (budget.tokens, budget.is_settled) == (1_024, False)
    plan = budget.plan(LONG)
    assert sorted(np.concatenate([rows for rows, _ in plan])) == list(range(60_000))
    assert work(budget, monkeypatch, {4_096: 2_000}) == list(CHOICES["cpu"]) * ROUNDS
    assert (budget.tokens, budget.is_settled) == (4_096, True)
    assert [tokens for _, tokens in budget.plan(LONG)] == [4_096]


def test_a_choice_that_is_hardly_faster_does_not_replace_the_default(network, monkeypatch):
    budget = TokenBudget(network)
    work(budget, monkeypatch, {2_048: 1_020})
    assert (budget.tokens, budget.is_settled) == (1_024, True)


def test_small_calls_are_not_cut_up(network):
    budget = TokenBudget(network)
    [(rows, tokens)] = budget.plan(np.full(100, 20))
    assert (rows.tolist(), tokens) == (list(range(100)), 1_024)
    with budget.timed(1_024, 2_000):
        pass
    assert not budget.is_settled and not memory_file().exists()


def test_what_was_measured_is_remembered_for_networks_of_the_shape(network, monkeypatch):
    work(TokenBudget(network), monkeypatch, {512: 2_000})
    assert json.loads(memory_file().read_text())["schema_version"] == 1
    assert (TokenBudget(network).tokens, TokenBudget(network).is_settled) == (512, True)
    for key, value in (("shape", "bert 3x32x64"), ("precision", "bfloat16"), ("backend", "onnx")):
        other = SimpleNamespace(**vars(network) | {key: value})
        assert not TokenBudget(other).is_settled
    work(TokenBudget(other), monkeypatch, {2_048: 2_000})
    assert (TokenBudget(network).tokens, TokenBudget(other).tokens) == (512, 2_048)


def test_a_given_budget_wins(network, monkeypatch):
    work(TokenBudget(network), monkeypatch, {512: 2_000})
    budget = TokenBudget(network, 77)
    assert [tokens for _, tokens in budget.plan(LONG)] == [77]
    with pytest.raises(ValueError, match="at least 1"):
        TokenBudget(network, 0)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"token_budgets": {"x": 1}}', '{"token_budgets": 3}'])
def test_a_damaged_memory_is_measured_anew(network, monkeypatch, content):
    memory_file().parent.mkdir()
    memory_file().write_text(content)
    budget = TokenBudget(network)
    assert not budget.is_settled
    work(budget, monkeypatch, {512: 2_000})
    assert TokenBudget(network).tokens == 512


def test_without_a_place_to_write_the_default_stays_usable(network, monkeypatch, cache):
    (cache / "umls_reranker").write_text("a file where the folder should be")
    budget = TokenBudget(network)
    work(budget, monkeypatch, {512: 2_000})
    assert budget.tokens == 512 and TokenBudget(network).tokens == 1_024
