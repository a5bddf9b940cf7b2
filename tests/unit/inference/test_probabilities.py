"""Probabilities, ensembles and labels by hand; what lies around the network's grid is background."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.grid_logits import NetworkInput
from llm4seg.inference.predictor import Predictor, predict_case
from llm4seg.inference.resample import resample

REGIONS = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2))
SHAPE, BOX = (8, 10, 9), ((1, 7), (2, 10), (0, 9))
INNER = (6, 8, 9)


class Fixed(nn.Module):
    """Logits that are drawn once, whatever the image."""

    def __init__(self, channels: int, seed: int, size: tuple[int, ...] = (4, 5, 6)) -> None:
        super().__init__()
        values = torch.randn((1, channels, *size), generator=torch.Generator().manual_seed(seed)) * 3
        self.logits = nn.Parameter(values)

    def forward(self, images_NCS: Tensor) -> Tensor:
        return self.logits.expand(len(images_NCS), *self.logits.shape[1:])


def original(network: Fixed, softmax: bool) -> np.ndarray:
    """The probabilities (K, *SHAPE) by NumPy, in double precision."""
    logits = resample(network.logits.detach(), INNER)[0].double().numpy()
    inner = np.exp(logits) / np.exp(logits).sum(axis=0) if softmax else 1 / (1 + np.exp(-logits))
    whole = np.zeros((len(logits), *SHAPE))
    if softmax:
        whole[0] = 1
    whole[(slice(None), *(slice(low, high) for low, high in BOX))] = inner
    return whole


@pytest.mark.parametrize(("channels", "scheme"), [(3, None), (1, None), (2, REGIONS)])
@pytest.mark.parametrize("several", [1, 3])
def test_the_mean_of_probabilities_and_its_labels(channels: int, scheme: LabelScheme | None, several: int) -> None:
    networks = [Fixed(channels, seed) for seed in range(several)]
    softmax = channels == 3
    read = [NetworkInput(torch.zeros(1, 4, 5, 6), SHAPE, BOX)] * several
    predictor = Predictor(networks, scheme)
    expected = np.mean([original(network, softmax) for network in networks], axis=0)
    found = np.stack([values.numpy() for values in predictor.probabilities(read)])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if softmax:
        labels = expected.argmax(axis=0)
    elif channels == 1:
        labels = (expected[0] > 0.5).astype(int)
    else:
        labels = np.where(expected[1] > 0.5, 2, np.where(expected[0] > 0.5, 1, 0))
    assert np.array_equal(predictor.labels(read).numpy(), labels)
    assert len(np.unique(labels)) == (2 if channels == 1 else 3)


def test_slices_make_a_volume_in_batches_of_any_size() -> None:
    """Slices of background stay where they are, in the middle of a batch, too."""
    networks = [Fixed(3, seed, (4, 5)) for seed in (0, 1)]
    read = [NetworkInput(torch.zeros(1, 4, 5), (8, 10))] * 2
    slices = [None, read, read, None, read, read, read]
    for batch in (1, 2, 4, 10):
        predictor = Predictor(networks, batch=batch)
        labels = predictor.slice_labels(iter(slices), (8, 10, 7)).numpy()
        every = np.stack([values.numpy() for values in predictor.slice_probabilities(iter(slices), (8, 10, 7), 3)])
        one = np.stack([values.numpy() for values in predictor.probabilities(read)])
        for position, each in enumerate(slices):
            expected = predictor.labels(read).numpy() if each else np.zeros((8, 10))
            assert np.array_equal(labels[..., position], expected)
            probability = one if each else np.stack([np.ones((8, 10)), *np.zeros((2, 8, 10))])
            np.testing.assert_allclose(every[..., position], probability, atol=1e-6)


def test_labels_of_one_network_are_those_of_its_logits() -> None:
    network = Fixed(3, 0)
    labels = Predictor([network]).labels([NetworkInput(torch.zeros(1, 4, 5, 6), INNER)])
    assert torch.equal(labels, predict_case(network, torch.zeros(1, 4, 5, 6), INNER))
    assert torch.equal(labels, resample(network.logits.detach(), INNER)[0].argmax(dim=0).to(torch.uint8))
