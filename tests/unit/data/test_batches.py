"""The global batch is the same for any number of workers, and each epoch sees every sample."""

import numpy as np
import pytest

from llm4seg.data.batches import epoch_order, steps_per_epoch, worker_share


@pytest.mark.parametrize(("samples", "batch_size"), [(10, 4), (8, 4), (3, 8), (1, 4)])
def test_an_epoch_sees_every_sample(samples: int, batch_size: int) -> None:
    order = epoch_order(samples, batch_size, seed=0, epoch=0)
    assert order.shape == (steps_per_epoch(samples, batch_size), batch_size)
    assert set(order.flatten()) == set(range(samples))


def test_order_follows_seed_and_epoch() -> None:
    order = epoch_order(50, 8, seed=1, epoch=2)
    assert np.array_equal(order, epoch_order(50, 8, seed=1, epoch=2))
    assert not np.array_equal(order, epoch_order(50, 8, seed=1, epoch=3))
    assert not np.array_equal(order, epoch_order(50, 8, seed=2, epoch=2))


@pytest.mark.parametrize(("workers", "accumulation"), [(1, 1), (2, 1), (4, 1), (2, 2), (1, 4)])
def test_workers_share_a_batch_without_loss(workers: int, accumulation: int) -> None:
    batch = np.arange(8)
    shares = [worker_share(batch, rank, workers, accumulation) for rank in range(workers)]
    assert all(len(micro_batch) == 8 // workers // accumulation for share in shares for micro_batch in share)
    assert all(len(share) == accumulation for share in shares)
    assert sorted(sample for share in shares for part in share for sample in part) == list(range(8))


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_how_many_workers_share_changes_no_micro_batch(accumulation: int) -> None:
    """Each worker has some of it, in order, and no worker has much more than another."""
    batch = np.arange(11)
    for workers in (1, 2, 3):
        shares = [worker_share(batch, rank, workers, accumulation) for rank in range(workers)]
        for number, whole in enumerate(np.array_split(batch, accumulation)):
            parts = [share[number] for share in shares]
            assert list(np.concatenate(parts)) == list(whole)
            assert 0 < min(map(len, parts)) >= max(map(len, parts)) - 1
