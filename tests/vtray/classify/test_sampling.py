from collections import Counter
from itertools import pairwise

import pytest

from vtray.classify.sampling import Sampling, eval_rows
from vtray.errors import ConfigError, InputError


def sampling(num_images=101, batch_size=16, seed=3, **more):
    return Sampling(num_images=num_images, batch_size=batch_size, seed=seed, **more)


def epoch_of(s, epoch):
    return [row for step in range(s.steps_per_epoch) for row in s.batch(epoch, step)]


@pytest.mark.parametrize(("num_images", "batch_size", "steps"), [(101, 16, 7), (96, 16, 6), (5, 16, 1), (1, 1, 1)])
def test_an_epoch_is_a_permutation_filled_up_from_its_own_start(num_images, batch_size, steps):
    s = sampling(num_images, batch_size)
    rows = epoch_of(s, 0)
    assert s.steps_per_epoch == steps
    assert len(rows) == steps * batch_size
    assert sorted(rows[:num_images]) == list(range(num_images))
    assert all(row == rows[place % num_images] for place, row in enumerate(rows))


def test_epochs_and_seeds_give_other_orders_and_the_same_ones_again():
    first = epoch_of(sampling(), 0)
    assert epoch_of(sampling(), 1) != first
    assert epoch_of(sampling(seed=4), 0) != first
    s = sampling()
    assert [epoch_of(s, epoch) for epoch in (0, 1, 0)] == [first, epoch_of(sampling(), 1), first]
    assert s == sampling()


@pytest.mark.parametrize("labels", [None, tuple(n % 3 for n in range(101))])
@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_the_global_batch_is_the_same_for_any_number_of_workers(size, labels):
    s = sampling(balanced_labels=labels)
    ranks = [list(s.rank_batches(2, rank=rank, size=size)) for rank in range(size)]
    assert {len(batches) for batches in ranks} == {7}
    assert {len(batch) for batches in ranks for batch in batches} == {16 // size}
    for step in range(7):
        assert sum((batches[step] for batches in ranks), ()) == s.batch(2, step)


def test_balanced_classes_get_equal_shares_and_every_image_its_turn():
    labels = (0,) * 80 + (1,) * 17 + (4,) * 4  # 2 and 3 have no image
    rows = epoch_of(sampling(balanced_labels=labels), 0)
    assert sorted(Counter(labels[row] for row in rows).values()) == [37, 37, 38]  # of 112
    turns = Counter(rows)
    assert {turns[row] for row in range(80)} == {0, 1}
    assert {turns[row] for row in range(80, 97)} == {2, 3}
    assert {turns[row] for row in range(97, 101)} <= {9, 10}


def test_a_balanced_batch_holds_the_classes_evenly():
    labels = tuple(min(n, 2) for n in range(50))
    s = sampling(50, 6, balanced_labels=labels)
    assert all(Counter(labels[row] for row in s.batch(1, step)) == {0: 2, 1: 2, 2: 2} for step in range(9))


@pytest.mark.parametrize(("num_rows", "size"), [(101, 3), (101, 2), (2, 5), (0, 2), (7, 7), (10**7 + 1, 6)])
def test_evaluation_counts_every_row_once_in_shares_that_differ_by_one(num_rows, size):
    shares = [eval_rows(num_rows, rank=rank, size=size) for rank in range(size)]
    assert shares[0].start == 0
    assert shares[-1].stop == num_rows
    assert all(left.stop == right.start for left, right in pairwise(shares))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size 16 cannot be shared by 3 workers; .* such as 18"):
        sampling().rank_batch(0, 0, rank=0, size=3)
    with pytest.raises(ConfigError, match=r"batch_size 2 cannot be shared by 4 workers; .* such as 4"):
        sampling(batch_size=2).rank_size(4)
    with pytest.raises(ConfigError, match="batch_size 0"):
        sampling(batch_size=0)
    with pytest.raises(ConfigError, match="2 labels for 101 images"):
        sampling(balanced_labels=(0, 1))
    with pytest.raises(InputError, match="no images to train on"):
        sampling(num_images=0)
    with pytest.raises(IndexError, match="step 7 of 7"):
        sampling().batch(0, 7)
