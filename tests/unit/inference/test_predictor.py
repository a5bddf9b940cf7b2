"""From the grid to the image's own resolution."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llm4seg.datasets.resample import resize_image
from llm4seg.inference.predictor import predict_case
from llm4seg.inference.resample import resample
from tests.finished_run import ByIntensity


def test_labels_have_the_native_shape() -> None:
    labels = predict_case(ByIntensity([0.0, 1.0]), torch.rand(1, 16, 16), (30, 21))
    assert (labels.shape, labels.dtype, labels.device.type) == ((30, 21), torch.uint8, "cpu")


def test_the_border_falls_where_the_logits_cross() -> None:
    """A ramp over 8 columns that crosses 0.5 in its middle: at 32 columns, exactly half are labelled."""
    image = ((torch.arange(8) + 0.5) / 8).expand(1, 4, 8).contiguous()
    labels = predict_case(ByIntensity([0.0, 1.0]), image, (4, 32))
    assert labels.tolist() == [[0] * 16 + [1] * 16] * 4


def test_logits_are_resampled_and_not_labels() -> None:
    """Between a sure 0 and an unsure 1 the border lies nearer to the unsure one."""
    labels = predict_case(ByIntensity([0.0, 1.0]), torch.tensor([[[0.0, 0.6]]]), (1, 16))
    assert 0 < labels.sum() < 8


def test_three_dimensions() -> None:
    volume = torch.zeros(1, 4, 4, 4)
    volume[0, 2:] = 1
    labels = predict_case(ByIntensity([0.0, 1.0]), volume, (8, 6, 10))
    assert labels.shape == (8, 6, 10)
    assert labels[4:].all()
    assert not labels[:4].any()


def test_one_channel_is_a_sigmoid() -> None:
    class Identity(nn.Linear):
        def forward(self, images_NCS: Tensor) -> Tensor:
            return images_NCS

    assert predict_case(Identity(1, 1), torch.tensor([[[-2.0, 2.0]]]), (1, 2)).tolist() == [[0, 1]]


def test_dropout_is_off() -> None:
    model = nn.Sequential(nn.Dropout(0.9), ByIntensity([0.0, 1.0]))
    model.train()
    assert predict_case(model, torch.ones(1, 8, 8), (8, 8)).all()


@pytest.mark.parametrize(("size", "shape"), [((8, 8), (16, 24)), ((4, 6, 8), (8, 6, 20))])
def test_resampling_lines_up_with_the_grid(size: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """`prepare` resizes images to the grid by the same convention, else predictions would lie beside the image."""
    image = np.random.default_rng(0).random((1, *size)).astype(np.float32)
    there = resample(torch.from_numpy(image)[None], shape)[0].numpy()
    assert there == pytest.approx(resize_image(image, shape), abs=1e-5)
