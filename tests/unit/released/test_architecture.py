"""The released code's small network: the same logits, loss and per-case metrics from the same weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from llm4seg.objectives.losses import build_loss, labels_from_logits
from llm4seg.released.architecture import from_official
from llm4seg.utils.errors import InputError
from tests.official import official_model, official_state, read_fixture


def test_every_released_name_has_a_place(tmp_path: Path) -> None:
    model = official_model(tmp_path)
    assert from_official(official_state()).keys() == model.state_dict().keys()


def test_unknown_released_name() -> None:
    with pytest.raises(InputError, match=r"'encoder9\.bias' is no weight of a released CMUNeXt"):
        from_official({"encoder9.bias": torch.zeros(1)})


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_same_logits_and_loss(tmp_path: Path, backend: str) -> None:
    _, tensors = read_fixture()
    model = official_model(tmp_path).eval()
    model.bottleneck.core.layers[0].self_attn.config._attn_implementation = backend
    with torch.no_grad():
        logits = model(tensors["x"])
    assert torch.allclose(logits, tensors["eval_logits"], rtol=0, atol=1e-6)
    loss = build_loss("bce_dice")(logits, tensors["y"].squeeze(1).long())
    assert float(loss) == pytest.approx(float(tensors["eval_loss"]), abs=1e-6)


def first_training_loss(root: Path, **block: str) -> float:
    """With batch statistics: under running ones this fresh network's bottleneck hardly reaches its logits (1e-7)."""
    _, tensors = read_fixture()
    with torch.no_grad():
        logits = official_model(root, **block).train()(tensors["x"])
    return float(build_loss("bce_dice")(logits, tensors["y"].squeeze(1).long()))


def test_same_loss_in_training_mode(tmp_path: Path) -> None:
    released = float(read_fixture()[1]["train_losses"][0])
    assert first_training_loss(tmp_path) == pytest.approx(released, abs=2e-6)


@pytest.mark.parametrize("block", [{"position": "native"}, {"position": "none"}, {"attention": "bidirectional"}])
def test_other_choices_compute_something_else(tmp_path: Path, block: dict[str, str]) -> None:
    released = float(read_fixture()[1]["train_losses"][0])
    assert abs(first_training_loss(tmp_path, **block) - released) > 1e-4


def released_metrics(predicted_S: Tensor, truth_S: Tensor) -> list[float]:
    """The seven columns: IoU, Dice, sensitivity, precision, F1, specificity, accuracy.

    IoU is smoothed by 1e-5, and Dice is 2 IoU / (1 + IoU). The others compare with `truth == truth.max()`, so that an
    empty mask counts as all foreground (paper.md, defect 15), and divide by a denominator plus 1e-6.
    """
    overlap, both = (predicted_S & truth_S).sum().double(), predicted_S.sum() + truth_S.sum()
    iou = (overlap + 1e-5) / (both - overlap + 1e-5)
    truth_S = truth_S == truth_S.max()
    tp, tn = (predicted_S & truth_S).sum().double(), (~predicted_S & ~truth_S).sum().double()
    fp, fn = (predicted_S & ~truth_S).sum(), (~predicted_S & truth_S).sum()
    sensitivity, precision = tp / (tp + fn + 1e-6), tp / (tp + fp + 1e-6)
    return [
        float(value)
        for value in (
            iou,
            2 * iou / (1 + iou),
            sensitivity,
            precision,
            2 * sensitivity * precision / (sensitivity + precision + 1e-6),
            tn / (tn + fp + 1e-6),
            (tp + tn) / predicted_S.numel(),
        )
    ]


def test_same_metrics(tmp_path: Path) -> None:
    _, tensors = read_fixture()
    with torch.no_grad():
        predicted = labels_from_logits(official_model(tmp_path).eval()(tensors["x"]))
    rows = [released_metrics(*pair) for pair in zip(predicted.bool(), tensors["y"].squeeze(1).bool(), strict=True)]
    assert torch.allclose(torch.tensor(rows, dtype=torch.float64), tensors["metrics"], rtol=0, atol=1e-12)
