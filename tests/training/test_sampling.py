"""Batches by hand: every row once, alike in length, the same set of rows under any number of processes."""

import numpy as np
import pytest

from umls_reranker.training.sampling import (
    EpochOrder,
    GlobalBatches,
    MentionLists,
    Pass,
)

LENGTHS = np.random.default_rng(5).integers(3, 40, 1_000)


def shares(rows, batch_size, passes, processes, epoch=0):
    """[process][pass] -> `Pass`."""
    order = EpochOrder(rows, seed=3)
    order.set_epoch(epoch)
    sizes = {"passes": passes, "num_processes": processes}
    parts = [GlobalBatches(order, LENGTHS, batch_size, process_index=p, **sizes) for p in range(processes)]
    lists = [list(part) for part in parts]
    assert [len(part) for part in parts] == [len(share) for share in lists]
    return lists


def global_batches(*args, **options):
    """The rows of each global batch, put together from all processes and passes."""
    passes, lists = args[2], shares(*args, **options)
    assert len({len(share) for share in lists}) == 1
    steps = len(lists[0]) // passes
    batches = [
        [row for share in lists for part in share[s * passes : (s + 1) * passes] if part.counts for row in part.rows]
        for s in range(steps)
    ]
    return [sorted(batch) for batch in batches]


@pytest.mark.parametrize(("passes", "processes"), [(4, 1), (1, 2), (2, 2), (3, 5), (1, 64)])
@pytest.mark.parametrize("rows", [1_000, 960, 961, 40])
def test_a_global_batch_has_the_same_rows_however_it_is_cut(rows, passes, processes):
    whole = global_batches(rows, 64, 1, 1)
    assert global_batches(rows, 64, passes, processes) == whole
    assert sorted(row for batch in whole for row in batch) == list(range(rows))
    assert [len(batch) for batch in whole] == [64] * (rows // 64) + [rows % 64] * (rows % 64 > 0)


def test_a_share_without_rows_gets_one_that_does_not_count():
    # One row is left for two processes of two passes each.
    first, second = shares(5, 4, 2, 2)
    last, padding = first[-2:]
    assert last.counts and len(last.rows) == 1 and padding == Pass(last.rows, False)
    assert second[-2:] == [padding, padding]
    assert all(len(part.rows) == 1 and part.counts for part in first[:2] + second[:2])


def test_rows_of_a_batch_are_alike_in_length_and_batches_come_in_any_order():
    [share] = shares(1_000, 50, 1, 1)
    lengths = [LENGTHS[part.rows] for part in share]
    # All 20 batches were sorted together: each spans about a twentieth of the range.
    assert max(np.ptp(part) for part in lengths) <= 4
    means = [part.mean() for part in lengths]
    assert means != sorted(means) and means != sorted(means, reverse=True)


def test_the_last_batch_holds_the_rows_drawn_last_by_length():
    [share] = shares(1_000, 64, 1, 1)
    assert sorted(share[-1].rows) == sorted(EpochOrder(1_000, seed=3).draw()[960:].tolist())
    assert (np.diff(LENGTHS[share[-1].rows]) >= 0).all()


def test_every_process_gets_short_rows_and_long_ones():
    [[first], [second]] = shares(64, 64, 1, 2)
    assert abs(LENGTHS[first.rows].mean() - LENGTHS[second.rows].mean()) < 2


def test_epochs_differ_and_a_seed_repeats_them():
    assert shares(1_000, 64, 1, 1, epoch=1) == shares(1_000, 64, 1, 1, epoch=1)
    assert shares(1_000, 64, 1, 1, epoch=1) != shares(1_000, 64, 1, 1, epoch=2)
    assert list(EpochOrder(50, seed=1)) != list(EpochOrder(50, seed=2))


# Whole mentions

# Mentions of 1, 3, 2 and 4 rows.
MENTION_IDS = np.array([7, 9, 9, 9, 4, 4, 30, 30, 30, 30])


def test_rows_and_lengths_of_mentions_by_hand():
    lists = MentionLists(MENTION_IDS)
    assert (lists.starts.tolist(), lists.sizes.tolist()) == ([0, 1, 4, 6], [1, 3, 2, 4])
    assert lists.rows(np.array([3, 0, 1, 0])).tolist() == [6, 7, 8, 9, 0, 1, 2, 3, 0]
    assert lists.longest(np.array([5, 1, 9, 2, 3, 4, 0, 0, 7, 8])).tolist() == [5, 9, 4, 8]
    # 2.5 pairs a mention.
    assert [lists.per_batch(rows) for rows in (1, 5, 6, 7, 10)] == [1, 2, 2, 3, 4]


def mention_shares(mentions, batch_size, passes, processes):
    """[process][pass] -> rows, of mentions of 1 to 9 pairs."""
    sizes = np.random.default_rng(6).integers(1, 10, mentions)
    lists = MentionLists(np.repeat(np.arange(mentions), sizes))
    lengths = np.random.default_rng(7).integers(3, 40, sizes.sum())
    cut = {"lists": lists, "passes": passes, "num_processes": processes}
    parts = [
        list(GlobalBatches(EpochOrder(mentions, 3), lengths, batch_size, process_index=p, **cut))
        for p in range(processes)
    ]
    return parts, lists, lengths


@pytest.mark.parametrize(("passes", "processes"), [(1, 1), (4, 1), (2, 2), (3, 5)])
@pytest.mark.parametrize("mentions", [96, 97, 5])
def test_a_pass_holds_whole_mentions_and_a_global_batch_the_same_however_it_is_cut(mentions, passes, processes):
    (whole,), lists, _ = mention_shares(mentions, 8, 1, 1)
    parts, *_ = mention_shares(mentions, 8, passes, processes)
    spans = {int(s): list(range(s, s + n)) for s, n in zip(lists.starts, lists.sizes, strict=True)}
    batches = [[] for _ in whole]
    for share in parts:
        for number, (rows, counts) in enumerate(share):
            if not counts:
                assert len(rows) == 1 and rows[0] in spans
                continue
            assert rows == [row for start in rows if start in spans for row in spans[start]]
            batches[number // passes] += rows
    whole = [part.rows for part in whole]
    assert [sorted(rows) for rows in batches] == [sorted(rows) for rows in whole]
    assert sorted(row for rows in whole for row in rows) == list(range(lists.sizes.sum()))
    assert [sum(row in spans for row in rows) for rows in whole] == [8] * (mentions // 8) + [mentions % 8] * (
        mentions % 8 > 0
    )


def test_mentions_of_a_batch_are_alike_in_their_longest_pair():
    (share,), lists, lengths = mention_shares(1_000, 50, 1, 1)
    longest, mention_of = lists.longest(lengths), np.repeat(np.arange(1_000), lists.sizes)
    spread = [np.ptp(longest[mention_of[rows]]) for rows in share]
    # All 20 batches were sorted together; mentions of one pair may be short.
    assert np.median(spread) <= 2
