"""Batches of pairs, asserted as whole tensors."""

import numpy as np
import pytest
import torch

from umls_reranker.training.collator import LabelledPairs, PairCollator

PAIRS = LabelledPairs(
    ids=np.array([2, 7, 3, 8, 3, 2, 7, 3], np.int32),
    lengths=np.array([5, 3], np.int16),
    first_lengths=np.array([3, 3], np.int16),
    labels=np.array([1.0, 0.0], np.float32),
    weights=np.array([1.5, 0.5], np.float32),
    rows=np.array([4, 2]),
)
SHORT = LabelledPairs(
    PAIRS.ids[5:], PAIRS.lengths[1:], PAIRS.first_lengths[1:], PAIRS.labels[1:], PAIRS.weights[1:], PAIRS.rows[1:]
)


def assert_batch(batch, expected):
    assert list(batch) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(batch[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("pad_token_id", "multiple", "width"), [(0, 1, 5), (9, 1, 5), (0, 8, 8), (1, 5, 5), (0, 4, 8)]
)
def test_a_batch_is_padded_to_its_longest_row(pad_token_id, multiple, width):
    extra = width - 5
    expected = {
        "input_ids": torch.tensor(
            [[2, 7, 3, 8, 3] + [pad_token_id] * extra, [2, 7, 3] + [pad_token_id] * (2 + extra)]
        ),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1] + [0] * extra, [1, 1, 1] + [0] * (2 + extra)]),
        "token_type_ids": torch.tensor([[0, 0, 0, 1, 1] + [0] * extra, [0, 0, 0] + [0] * (2 + extra)]),
        "labels": torch.tensor([1.0, 0.0]),
        "weight": torch.tensor([1.5, 0.5]),
        "row": torch.tensor([4, 2]),
    }
    assert_batch(PairCollator(pad_token_id, pad_to_multiple_of=multiple)(PAIRS), expected)


def test_token_types_are_left_out_for_models_without():
    batch = PairCollator(0, token_types=False, pad_to_multiple_of=1)(SHORT)
    expected = {
        "input_ids": torch.tensor([[2, 7, 3]]),
        "attention_mask": torch.tensor([[1, 1, 1]]),
        "labels": torch.tensor([0.0]),
        "weight": torch.tensor([0.5]),
        "row": torch.tensor([2]),
    }
    assert_batch(batch, expected)


def test_widths_are_multiples_of_eight_by_default():
    assert PairCollator(0)(PAIRS)["input_ids"].shape == (2, 8)
