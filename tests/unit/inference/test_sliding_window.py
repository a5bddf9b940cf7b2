"""Sliding windows against NumPy by hand and MONAI's own call; labels against those of all channels at once."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import monai.inferers
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference import sliding_window
from llm4seg.inference.predictor import predict_case
from llm4seg.inference.resample import resample
from llm4seg.inference.sliding_window import device_for, labels_at, sliding_window_logits, window_count
from llm4seg.objectives.losses import labels_from_logits
from tests.finished_run import ByIntensity

CLASSES = LabelScheme(("a", "b", "c"))
# whole, core, edge: as of brain tumors; the labels are written in an order that is not their own
REGIONS = LabelScheme(("whole", "core", "edge"), ((1, 2, 3), (2, 3), (3,)), (1, 2, 3))
SWAPPED = LabelScheme(("core", "edge"), ((2,), (1,)), (2, 1))


def unchanged(windows_NCS: Tensor) -> Tensor:
    return windows_NCS


class Places(nn.Module):
    """Logits that differ from place to place in a window, so that windows disagree and their weights decide."""

    def __init__(self, patch: Sequence[int]) -> None:
        super().__init__()
        self.ramp = nn.Parameter(torch.linspace(-1, 1, 2 * math.prod(patch)).reshape(2, *patch))

    def forward(self, windows_NCS: Tensor) -> Tensor:
        return windows_NCS[:, :1] + self.ramp


@pytest.mark.parametrize("length", range(1, 25))
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_an_identity_returns_the_image(length: int, shape: tuple[int, ...]) -> None:
    """Every length from 1 to 3 patches on the first axis, and on the last one."""
    for sides in ((length, *shape), (*shape, length)):
        patch = tuple(8 if side == length else 2 for side in sides)
        image = torch.rand(2, *sides, generator=torch.Generator().manual_seed(length)) * 2 - 1
        kept = image.clone()
        for overlap, batch in itertools.product((0.0, 0.5, 0.7), (1, 3)):
            logits = sliding_window_logits(unchanged, image, patch, overlap, batch)
            assert (logits.shape, logits.dtype) == (image.shape, torch.float32)
            assert float((logits - kept).abs().max()) < 5e-7
        assert torch.equal(image, kept)  # MONAI multiplies what a network returns in place


def by_hand(network: nn.Module, image_CS: Tensor, patch: Sequence[int], overlap: float) -> np.ndarray:
    """The weighted mean of windows in float64: steps of half a patch, the last window moved back to the border."""
    sides = image_CS.shape[1:]
    bells = []
    for side in patch:
        places = np.arange(side) - (side - 1) / 2
        bells.append(np.exp(-(places**2) / (2 * (side / 8) ** 2)))
    weights = bells[0][:, None] * bells[1]
    weights = np.maximum(weights, max(weights.min(), 1e-3))
    steps = [max(1, int(side * (1 - overlap))) for side in patch]
    starts = [
        sorted({min(start, length - side) for start in range(0, length, step)})
        for length, side, step in zip(sides, patch, steps, strict=True)
    ]
    total, count = 0.0 * np.zeros((2, *sides)), np.zeros(sides)
    for row, column in itertools.product(*starts):
        window = (slice(row, row + patch[0]), slice(column, column + patch[1]))
        logits = network(image_CS[(None, slice(None), *window)])[0].detach().double().numpy()
        total[(slice(None), *window)] += weights * logits
        count[window] += weights
    return np.asarray(total / count)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.6])
def test_windows_are_blended_by_gaussian_weights(overlap: float) -> None:
    patch, image = (8, 6), torch.rand(1, 19, 17, generator=torch.Generator().manual_seed(0))
    network = Places(patch)
    logits = sliding_window_logits(network, image, patch, overlap)
    assert logits.numpy() == pytest.approx(by_hand(network, image, patch, overlap), abs=2e-6)


@pytest.mark.parametrize("shape", [(19, 17), (5, 17), (5, 4), (8, 6), (9, 12, 7), (3, 12, 2)])
@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_logits_are_those_of_monai(shape: tuple[int, ...], batch: int) -> None:
    """Padded as MONAI pads, too; to the bit."""
    patch = (8, 6, 4)[: len(shape)]
    network, image = Places(patch), torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = monai.inferers.sliding_window_inference(image[None], patch, batch, network, 0.5, mode="gaussian")
    assert torch.equal(sliding_window_logits(network, image, patch, batch=batch), theirs[0])


def test_outside_of_a_small_image_are_zeros_on_both_sides() -> None:
    seen = []

    def network(windows_NCS: Tensor) -> Tensor:
        seen.append(windows_NCS.clone())
        return windows_NCS

    sliding_window_logits(network, torch.full((1, 2, 3), 7.0), (5, 4))
    (window,) = seen
    assert window.shape == (1, 1, 5, 4)
    assert window[0, 0, 1:3, 0:3].eq(7).all()
    assert window.sum() == 7 * 6


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.4, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("shape", [(3, 4), (8, 6), (9, 6), (16, 13), (17, 30), (5, 7, 9), (24, 12, 8)])
def test_window_count_is_the_number_of_passes(shape: tuple[int, ...], overlap: float) -> None:
    passes = 0

    def network(windows_NCS: Tensor) -> Tensor:
        nonlocal passes
        assert windows_NCS.shape[:1] == (1,)
        passes += 1
        return windows_NCS

    patch = (8, 6, 4)[: len(shape)]
    sliding_window_logits(network, torch.zeros(1, *shape), patch, overlap)
    assert window_count(shape, patch, overlap) == passes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """Of a network that looks at one pixel, windows agree: sums that were rounded would not give its own values."""
    torch.manual_seed(0)
    network, image = nn.Conv3d(1, 3, 1), torch.rand(1, 11, 9, 10)

    def autocast(windows_NCS: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return network(windows_NCS)

    logits, own = sliding_window_logits(autocast, image, (4, 4, 4), batch=3), autocast(image[None])[0].detach()
    assert (own.dtype, logits.dtype) == (dtype, torch.float32)
    assert float((logits - own.float()).abs().max()) < 1e-6


def test_an_image_in_half_precision_is_summed_in_float32() -> None:
    image = torch.rand(1, 30, generator=torch.Generator().manual_seed(0)).half()
    logits = sliding_window_logits(unchanged, image, (8,))
    assert logits.dtype == torch.float32
    assert float((logits - image.float()).abs().max()) < 1e-6


def test_neither_gradients_nor_the_mode_are_touched() -> None:
    network = Places((4, 4)).train()
    assert not sliding_window_logits(network, torch.zeros(1, 9, 9), (4, 4)).requires_grad
    assert network.training


def test_logits_that_do_not_fit_are_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert [device_for(100, gpu, budget) for budget in (0, 99, 100)] == [cpu, cpu, gpu]
    assert device_for(100, cpu, 0) == cpu
    monkeypatch.setattr(sliding_window, "free_bytes", lambda device: 1000)
    assert [device_for(needed, gpu, None) for needed in (800, 801)] == [gpu, cpu]


@pytest.mark.parametrize(("short", "place"), [(1, "cpu"), (0, "meta")])
def test_the_budget_is_for_logits_and_the_sum_of_weights(
    short: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network on another device, of which MONAI is told; 2 channels and the weights, of the padded image."""

    class Told(Exception):
        pass

    def told(*_: Any, **options: Any) -> Tensor:
        raise Told(options["sw_device"].type, options["device"].type)

    monkeypatch.setattr(monai.inferers, "sliding_window_inference", told)
    with pytest.raises(Told) as error:
        sliding_window_logits(Places((8, 6)).to("meta"), torch.zeros(1, 19, 5), (8, 6), budget=4 * 3 * 19 * 6 - short)
    assert error.value.args == ("meta", place)


SHAPES = [((7, 9), (20, 31)), ((40, 33), (11, 17)), ((6, 50), (70, 13)), ((130, 120), (240, 233))]
VOLUMES = [((5, 6, 7), (13, 12, 20)), ((13, 12, 20), (5, 6, 7)), ((4, 9, 3), (4, 5, 31)), ((1, 9, 2), (4, 1, 2))]


@pytest.mark.parametrize(("size", "shape"), [((9,), (20,)), *SHAPES, *VOLUMES])
@pytest.mark.parametrize(
    ("channels", "scheme"), [(1, None), (4, CLASSES), (4, None), (14, None), (3, REGIONS), (2, SWAPPED)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_labels_are_those_of_all_channels_at_once(
    size: tuple[int, ...], shape: tuple[int, ...], channels: int, scheme: LabelScheme | None, whole: bool
) -> None:
    """Bit for bit, and with `whole` logits, of which many are equal."""
    logits = torch.randn(channels, *size, generator=torch.Generator().manual_seed(0))
    logits = logits.round() if whole else logits
    expected = labels_from_logits(resample(logits[None], shape), scheme)[0]
    found = labels_at(logits, shape, scheme)
    assert (found.dtype, found.shape) == (torch.uint8, shape)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("scheme", [CLASSES, REGIONS])
def test_channels_of_a_volume_are_resampled_one_at_a_time(scheme: LabelScheme, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/benchmarks/inference_memory.py measures the memory."""
    made = []

    def one(values_NCS: Tensor, shape: Sequence[int]) -> Tensor:
        made.append(tuple(values_NCS.shape[:2]))
        return resample(values_NCS, shape)

    monkeypatch.setattr(sliding_window, "resample", one)
    channels = 3 if scheme.regions else 4
    labels_at(torch.randn(channels, 3, 3, 3), (5, 5, 5), scheme)
    assert made == [(1, 1)] * channels


def test_a_case_is_predicted_by_windows() -> None:
    """A network that looks at one voxel: the same labels as without windows, at a shape that is not the image's."""
    volume = torch.rand(1, 11, 9, 10, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Dropout(0.9), ByIntensity([0.0, 0.4, 1.0])).train()
    by_windows = predict_case(model, volume, (15, 9, 6), patch=(4, 4, 4))
    assert by_windows.shape == (15, 9, 6)
    assert by_windows.unique().tolist() == [0, 1, 2]
    assert torch.equal(by_windows, predict_case(model, volume, (15, 9, 6)))
