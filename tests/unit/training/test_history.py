"""When a training is complete: after all epochs, or after `training.patience` without a better validation Dice."""

import pytest

from llm4seg.config.schema import Training
from llm4seg.training.history import epochs_since_best, is_complete
from llm4seg.training.run import Row
from tests.import_graph import ROOT


def rows(*dice: float) -> list[Row]:
    return [{"val_dice": value} for value in dice]


@pytest.fixture(scope="module")
def section() -> Training:
    from llm4seg.config import Config

    return Config.load(ROOT / "params.yaml").training.model_copy(update={"epochs": 6})


@pytest.mark.parametrize(
    ("dice", "since"),
    [((0.5,), 0), ((0.5, 0.4), 1), ((0.5, 0.5), 1), ((0.1, 0.5, 0.4, 0.5, 0.3), 3), ((0.3, 0.2, 0.4), 0)],
)
def test_an_equal_dice_is_no_better_one(dice: tuple[float, ...], since: int) -> None:
    assert epochs_since_best(rows(*dice)) == since


@pytest.mark.parametrize(
    ("patience", "dice", "complete"),
    [
        (None, (), False),
        (1, (), False),
        (None, (0.9, 0.1, 0.1, 0.1, 0.1), False),
        (None, (0.9, 0.1, 0.1, 0.1, 0.1, 0.1), True),
        (2, (0.5, 0.4), False),
        (2, (0.5, 0.4, 0.4), True),
        (2, (0.5, 0.4, 0.6, 0.1), False),
        (9, (0.9, 0.1, 0.1, 0.1, 0.1, 0.1), True),
    ],
)
def test_complete(section: Training, patience: int | None, dice: tuple[float, ...], complete: bool) -> None:
    assert is_complete(rows(*dice), section.model_copy(update={"patience": patience})) == complete
