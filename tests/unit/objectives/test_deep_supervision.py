"""The loss over several resolutions: labels as nnU-Net shrinks them, weights by hand, regions and ignored pixels."""

from collections.abc import Sequence

import pytest
import torch
from torch.nn.functional import interpolate

from llm4seg.config import Config
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.objectives.deep_supervision import downsampled, supervised_loss
from llm4seg.objectives.losses import Name, build_loss
from tests.tiny import PARAMS

CLASSES = LabelScheme(("a", "b"), ignore=True)
REGIONS = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2), ignore=True)


def labels_of(*size: int) -> torch.Tensor:
    """Labels of two classes, and some ignored."""
    labels = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(0))
    return torch.where(labels == 3, IGNORE, labels)


@pytest.mark.parametrize(
    ("size", "coarse"), [((16, 8), (8, 4)), ((16, 8), (2, 8)), ((8, 16, 4), (4, 4, 4)), ((24, 8, 4), (8, 2, 1))]
)
def test_labels_are_shrunk_as_by_nnunet(size: Sequence[int], coarse: Sequence[int]) -> None:
    labels = labels_of(*size)
    expected = interpolate(labels[:, None].float(), tuple(coarse), mode="nearest-exact")[:, 0].long()
    assert torch.equal(downsampled(labels, coarse), expected)


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("scheme", [CLASSES, REGIONS])
@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "tversky_ce"])
def test_weights_halve_and_sum_to_one(name: Name, scheme: LabelScheme) -> None:
    loss = build_loss(name, scheme, Config.load(PARAMS).training)
    labels, channels = labels_of(8, 8), 2 if scheme.regions else 3
    levels = [torch.randn(2, channels, side, side, requires_grad=True) for side in (8, 4, 2)]
    parts = [loss(logits, downsampled(labels, logits.shape[2:])) for logits in levels]
    total = supervised_loss(loss, levels, labels)
    assert float(total.detach()) == pytest.approx(
        float((4 * parts[0] + 2 * parts[1] + parts[2]).detach()) / 7, rel=1e-6
    )
    total.backward()
    ignored = downsampled(labels, (2, 2)) == IGNORE
    gradients = levels[2].grad
    assert gradients is not None
    assert ignored.any()
    assert (gradients.abs().sum(1) == 0).equal(ignored)
