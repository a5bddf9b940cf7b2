"""Losses against hand-worked values."""

import math

import pytest
import torch

from llm4seg.config import Config
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.objectives.losses import Loss, Name, build_loss, labels_from_logits, out_channels
from llm4seg.utils.errors import InputError
from tests.tiny import PARAMS

LESION, FOUR = LabelScheme(("lesion",)), LabelScheme(("a", "b", "c", "d"))
NAMES: list[Name] = ["dice_ce", "bce_dice", "dice_focal", "tversky_ce"]
TRAINING = Config.load(PARAMS).training


def loss_of(name: Name, scheme: LabelScheme | None = None, weights: torch.Tensor | None = None) -> Loss:
    """The loss with its parameters in params.yaml."""
    return build_loss(name, scheme, TRAINING, weights)


def logits_of(probabilities_NKS: list) -> torch.Tensor:
    return torch.tensor(probabilities_NKS).log()


def test_dice_ce_by_hand() -> None:
    """Two pixels, background and one class. Dice = 2 * 0.75 / (0.75 + 0.4 + 1)."""
    logits = logits_of([[[0.25, 0.6], [0.75, 0.4]]])
    labels = torch.tensor([[1, 0]])
    cross_entropy = -(math.log(0.75) + math.log(0.6)) / 2
    dice = (2 * 0.75 + 1e-5) / (0.75 + 0.4 + 1 + 1e-5)
    assert float(build_loss("dice_ce")(logits, labels)) == pytest.approx(cross_entropy + 1 - dice, abs=1e-6)


def test_dice_is_over_the_batch_and_the_mean_of_foreground_classes() -> None:
    """Class 1 is in the first image only, class 2 in none: Dice of 1 over both images, and nearly 0."""
    probabilities = [[[0.3], [0.6], [0.1]], [[0.5], [0.2], [0.3]]]
    labels = torch.tensor([[1], [0]])
    one = (2 * 0.6 + 1e-5) / (0.6 + 0.2 + 1 + 1e-5)
    two = 1e-5 / (0.1 + 0.3 + 1e-5)
    expected = -(math.log(0.6) + math.log(0.5)) / 2 + 1 - (one + two) / 2
    assert float(build_loss("dice_ce")(logits_of(probabilities), labels)) == pytest.approx(expected, abs=1e-6)


def test_bce_dice_by_hand() -> None:
    """Dice per image: 2 * 0.8 / (0.8 + 0.5 + 1), and for the empty mask 1e-5 / (0.1 + 0.2)."""
    probability = torch.tensor([[[0.8, 0.5]], [[0.1, 0.2]]])
    labels = torch.tensor([[1, 0], [0, 0]])
    entropy = -(math.log(0.8) + math.log(0.5) + math.log(0.9) + math.log(0.8)) / 4
    dice = ((1.6 + 1e-5) / (2.3 + 1e-5) + 1e-5 / (0.3 + 1e-5)) / 2
    assert float(build_loss("bce_dice")(probability.logit(), labels)) == pytest.approx(
        0.5 * entropy + 1 - dice, abs=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(6, 4), (6, 4, 2)])
def test_perfect_is_zero_and_worst_is_large(name: Name, size: tuple[int, ...]) -> None:
    channels = out_channels(name, LESION)
    labels = torch.arange(math.prod(size)).reshape(1, *size) % 2
    sign = 2 * labels[:, None].float() - 1
    perfect = 100 * (sign if channels == 1 else torch.cat([-sign, sign], dim=1))
    assert float(loss_of(name)(perfect, labels)) == pytest.approx(0, abs=1e-6)
    assert float(loss_of(name)(-perfect, labels)) > 10


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_summed_in_float32(name: Name) -> None:
    """In bfloat16 a sum of 65 536 probabilities would stop growing at 256."""
    torch.manual_seed(0)
    logits = torch.randn(2, out_channels(name, LESION), 256, 256).bfloat16()
    labels = torch.randint(0, 2, (2, 256, 256))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss_of(name)(logits, labels)
    assert mixed.dtype == torch.float32
    assert float(mixed) == pytest.approx(float(loss_of(name)(logits.float(), labels)), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_and_empty_masks_stay_finite(name: Name) -> None:
    logits = torch.full((1, out_channels(name, LESION), 4, 4), 1e4, requires_grad=True)
    loss = loss_of(name)(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_output_channels() -> None:
    assert out_channels("dice_ce", FOUR) == 5
    assert out_channels("bce_dice", LESION) == 1
    said = r"training\.loss: found bce_dice, allowed: dice_ce, dice_focal or tversky_ce, since the data has 4 classes"
    with pytest.raises(InputError, match=said):
        out_channels("bce_dice", FOUR)


def test_labels_from_logits() -> None:
    one = labels_from_logits(torch.tensor([[[-0.1, 0.0, 0.1]]]))
    assert (one.tolist(), one.dtype) == ([[0, 0, 1]], torch.uint8)
    several = labels_from_logits(torch.tensor([[[0.0, 3.0], [1.0, 2.0], [0.5, 4.0]]]))
    assert (several.tolist(), several.dtype) == ([[1, 2]], torch.uint8)


IGNORING = LabelScheme(("lesion",), ignore=True)


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_count_nowhere(name: Name) -> None:
    """The loss is that of the other pixels alone, whatever is predicted, and no gradient flows from the ignored."""
    torch.manual_seed(0)
    logits = torch.randn(1, out_channels(name, IGNORING), 12, requires_grad=True)
    labels = torch.tensor([[0, 1, 1, 0, 0, 1, 1, IGNORE, IGNORE, 0, IGNORE, 1]])
    kept = labels[0] != IGNORE
    loss = loss_of(name, IGNORING)(logits, labels)
    assert loss.item() == pytest.approx(loss_of(name, LESION)(logits[..., kept], labels[:, kept]).item(), abs=1e-6)
    loss.backward()
    assert not logits.grad[..., ~kept].any()
    assert logits.grad[..., kept].abs().min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_nothing_but_ignored_pixels_is_no_nan(name: Name) -> None:
    logits = torch.randn(2, out_channels(name, IGNORING), 6, requires_grad=True)
    loss = loss_of(name, IGNORING)(logits, torch.full((2, 6), IGNORE))
    loss.backward()
    assert math.isfinite(loss.item())
    assert not logits.grad.any()


REGIONS = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2), ignore=True)


def test_regions_are_a_sigmoid_each() -> None:
    """Two images of three pixels, the last ignored: MONAI's losses on masks of each region, by hand put together."""
    from monai.losses import DiceLoss

    torch.manual_seed(1)
    logits, labels = torch.randn(2, 2, 3), torch.tensor([[1, 2, 0], [2, 0, IGNORE]])
    truth = torch.tensor([[[1, 1, 0], [0, 1, 0]], [[1, 0, 0], [1, 0, 0]]]).float()
    kept = (labels != IGNORE)[:, None]
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = entropy[kept.expand_as(entropy)].mean()
    dice = DiceLoss(include_background=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
    expected = entropy + dice(logits.sigmoid() * kept, truth)
    assert float(build_loss("dice_ce", REGIONS)(logits, labels)) == pytest.approx(float(expected), abs=1e-6)


def test_the_channels_of_regions() -> None:
    assert out_channels("dice_ce", REGIONS) == 2
    with pytest.raises(InputError, match="found bce_dice, allowed: dice_ce"):
        out_channels("bce_dice", REGIONS)


@pytest.mark.parametrize("name", ["dice_ce", "bce_dice"])
def test_an_image_of_nothing_but_ignored_pixels_changes_no_loss(name: str) -> None:
    """Neither beside another image nor in a batch, or on a worker, of its own."""
    torch.manual_seed(2)
    logits, labels = torch.randn(2, out_channels(name, IGNORING), 6), torch.full((2, 6), IGNORE)
    labels[0] = torch.tensor([0, 1, 1, 0, IGNORE, 1])
    loss = build_loss(name, IGNORING)
    alone = float(loss(logits[:1], labels[:1]))
    assert float(loss(logits, labels)) == pytest.approx(alone, abs=1e-6)
    added = loss.sums(logits[:1], labels[:1]) + loss.sums(logits[1:], labels[1:])
    assert float(loss.value(added)) == pytest.approx(alone, abs=1e-6)


def test_bce_dice_of_one_region_of_several_labels() -> None:
    """The region is a mask of 0 and 1, whatever its labels."""
    scheme = LabelScheme(("tumor",), ((1, 2, 3),), (3,))
    logits, labels = torch.randn(2, 1, 5), torch.tensor([[0, 1, 2, 3, 0], [0, 0, 0, 3, 3]])
    assert float(build_loss("bce_dice", scheme)(logits, labels)) == float(
        build_loss("bce_dice", LESION)(logits, (labels > 0).long())
    )
    assert labels_from_logits(torch.tensor([[[-1.0, 1.0]]]), scheme).tolist() == [[0, 3]]
