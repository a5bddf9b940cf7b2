"""Focal and Tversky losses and class weights, against MONAI's classes and torch's."""

import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss
from monai.networks.utils import one_hot
from torch import Tensor
from torch.nn import functional

from llm4seg.config import Config
from llm4seg.config.schema import Training
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.objectives.losses import Loss, Name, build_loss
from tests.tiny import PARAMS

TRAINING = Config.load(PARAMS).training
CLASSES = LabelScheme(("a", "b", "c"))
IGNORING = LabelScheme(("a", "b", "c"), ignore=True)
REGIONS = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2))
IGNORING_REGIONS = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2), ignore=True)
SMOOTHED = {"batch": True, "smooth_nr": 1e-5, "smooth_dr": 1e-5}
WEIGHTS = torch.tensor([0.2, 1.0, 3.0, 0.5])
SIZES = [(6, 5), (4, 5, 3)]


def section(gamma: float = 2.0, alpha: float = 0.3, beta: float = 0.7) -> Training:
    values = {"focal_gamma": gamma, "tversky": {"alpha": alpha, "beta": beta}}
    return Training.model_validate(TRAINING.model_dump() | values)


def drawn(scheme: LabelScheme, size: tuple[int, ...], images: int = 3) -> tuple[Tensor, Tensor]:
    """Logits, rare classes among the labels, and a tenth of pixels ignored where the scheme has such."""
    torch.manual_seed(len(size))
    channels = len(scheme.classes) + (not scheme.regions)
    labels = torch.randint(0, scheme.labels + 1, (images, *size)) * (torch.rand(images, *size) < 0.4)
    if scheme.ignore:
        labels[torch.rand(images, *size) < 0.1] = IGNORE
    return 3 * torch.randn(images, channels, *size), labels


def monai(name: str, own: Training, logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The loss of classes put together of MONAI's, on one-hot labels."""
    channels = logits.shape[1]
    truth = one_hot(labels[:, None], channels)
    if name == "dice_focal":
        focal = FocalLoss(gamma=own.focal_gamma, use_softmax=True, weight=weights)
        return focal(logits, truth) + DiceLoss(include_background=False, softmax=True, **SMOOTHED)(logits, truth)
    alpha, beta = own.tversky.alpha, own.tversky.beta
    tversky = TverskyLoss(include_background=False, softmax=True, alpha=alpha, beta=beta, **SMOOTHED)
    return functional.cross_entropy(logits, labels, weights) + tversky(logits, truth)


def same(loss: Loss, logits: Tensor, labels: Tensor, expected: Tensor, at: Tensor) -> None:
    """Values and gradients with respect to the logits that both are computed from."""
    found = loss(logits, labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(one, at, retain_graph=True)[0] for one in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("own", [section(), section(gamma=0.0, alpha=0.5, beta=0.5), section(3.5, 0.8, 0.1)])
@pytest.mark.parametrize("name", ["dice_focal", "tversky_ce"])
def test_of_classes_equals_monai(name: Name, own: Training, weights: Tensor | None, size: tuple[int, ...]) -> None:
    logits, labels = drawn(CLASSES, size)
    logits.requires_grad_()
    expected = monai(name, own, logits, labels, weights)
    same(build_loss(name, CLASSES, own, weights), logits, labels, expected, logits)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", ["dice_focal", "tversky_ce"])
def test_ignored_pixels_are_as_if_not_there(name: Name, weights: Tensor | None, size: tuple[int, ...]) -> None:
    """MONAI's, on the other pixels as one long image: sums over the batch know no shape."""
    logits, labels = drawn(IGNORING, size)
    logits.requires_grad_()
    kept = labels != IGNORE
    others = logits.movedim(1, -1)[kept].T[None]
    expected = monai(name, section(), others, labels[kept][None], weights)
    same(build_loss(name, IGNORING, section(), weights), logits, labels, expected, logits)


@pytest.mark.parametrize("scheme", [REGIONS, IGNORING_REGIONS])
@pytest.mark.parametrize("name", ["dice_focal", "tversky_ce"])
def test_of_regions_equals_monai(name: Name, scheme: LabelScheme) -> None:
    logits, labels = drawn(scheme, (7, 6))
    logits.requires_grad_()
    kept = labels != IGNORE
    others = logits.movedim(1, -1)[kept].T[None]
    truth = torch.stack([(labels == 1) | (labels == 2), labels == 2], dim=-1)[kept].T[None].float()
    if name == "dice_focal":
        expected = FocalLoss(gamma=2.0)(others, truth) + DiceLoss(sigmoid=True, **SMOOTHED)(others, truth)
    else:
        expected = functional.binary_cross_entropy_with_logits(others, truth)
        expected = expected + TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, **SMOOTHED)(others, truth)
    same(build_loss(name, scheme, section()), logits, labels, expected, logits)


@pytest.mark.parametrize("scheme", [CLASSES, IGNORING])
def test_weighted_cross_entropy_is_torchs(scheme: LabelScheme) -> None:
    logits, labels = drawn(scheme, (7, 6))
    expected = functional.cross_entropy(logits, labels, WEIGHTS, ignore_index=IGNORE)
    unweighted = functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    weighted, plain = (build_loss("dice_ce", scheme, None, one)(logits, labels) for one in (WEIGHTS, None))
    assert float(weighted - plain) == pytest.approx(float(expected - unweighted), abs=1e-6)


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "tversky_ce"])
@pytest.mark.parametrize("scheme", [IGNORING, IGNORING_REGIONS])
def test_sums_of_shares_add_up(name: Name, scheme: LabelScheme) -> None:
    """Whatever share of the images a worker has, the value is that of all."""
    logits, labels = drawn(scheme, (6, 5), images=5)
    loss = build_loss(name, scheme, section(), None if scheme.regions else WEIGHTS)
    parts = sum(loss.sums(logits[own], labels[own]).double() for own in ([0, 1, 2], [3], [4]))
    assert isinstance(parts, Tensor)
    assert float(loss.value(parts)) == pytest.approx(float(loss(logits, labels)), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_certain_network_has_a_finite_focal_gradient(gamma: float) -> None:
    logits = torch.tensor([[[200.0, -200.0], [-200.0, 200.0]]], requires_grad=True)
    for labels in (torch.tensor([[0, 1]]), torch.tensor([[1, 0]])):
        (gradient,) = torch.autograd.grad(build_loss("dice_focal", None, section(gamma))(logits, labels), logits)
        assert gradient.isfinite().all()


def test_a_higher_beta_makes_missed_pixels_dearer() -> None:
    """A mask of 8 pixels: 4 of them missed, or 4 false ones beside it."""
    truth = torch.tensor([[1] * 8 + [0] * 24])
    missed, false = torch.tensor([[1] * 4 + [0] * 28]), torch.tensor([[1] * 12 + [0] * 20])
    logits = [40.0 * torch.stack([1 - 2 * one, 2 * one - 1], dim=1) for one in (missed, false)]
    entropy = [functional.cross_entropy(one, truth) for one in logits]
    for alpha, beta, scores in ((0.3, 0.7, (4 / 6.8, 8 / 9.2)), (0.7, 0.3, (4 / 5.2, 8 / 10.8))):
        loss = build_loss("tversky_ce", None, section(alpha=alpha, beta=beta))
        found = [float(loss(one, truth) - out) for one, out in zip(logits, entropy, strict=True)]
        assert found == pytest.approx([1 - score for score in scores], abs=1e-5)
