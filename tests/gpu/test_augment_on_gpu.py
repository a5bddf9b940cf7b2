"""Every augmentation gives on a CUDA device what it gives on the CPU, and leaves the batch there."""

import pytest
import torch

from llm4seg.data.augment import augment
from tests.unit.data.test_augment import LIVELY, VALUES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize(("channels", "size"), [(1, (64, 64)), (3, (64, 64)), (1, (32, 32, 24))])
def test_the_same_as_on_the_cpu(channels: int, size: tuple[int, ...]) -> None:
    """To rounding, which moves the nearest label of hardly a pixel."""
    section = LIVELY.model_copy(update=VALUES | {"elastic": 3.0})
    images, labels = torch.rand(32, channels, *size), torch.randint(0, 4, (32, *size))
    samples = list(range(32))
    expected, expected_labels = augment(images, labels, samples, section, seed=0, epoch=0)
    found, found_labels = augment(images.cuda(), labels.cuda(), samples, section, seed=0, epoch=0)
    assert found.is_cuda
    assert found_labels.is_cuda
    # a nearest pixel of the low resolution may be another one, too
    assert ((found.cpu() - expected).abs() > 1e-3).float().mean() < 1e-3
    assert (found_labels.cpu() != expected_labels).float().mean() < 1e-3
