"""The benchmark that holds the screen's measures against full trainings, on made-up trainings with a known order."""

import math

import numpy as np
import pandas as pd
import pytest

from llm4seg.analysis.screen import CNN, MEASURES
from llm4seg.utils.errors import InputError
from tests.benchmarks.screen_tau import ceiling, compared, scores_by_layer, tau

LAYERS = [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
TRUE = np.linspace(0.5, 0.6, 10)


def study(noise: float, seed: int = 0) -> pd.DataFrame:
    """Dice of two cases of each layer's arm in three seeds, each at a level of its own, and of another arm."""
    random = np.random.default_rng(seed)
    rows = []
    for repeat, level in enumerate((0.0, 0.2, 0.1)):
        for layer, dice in zip(LAYERS, TRUE, strict=True):
            drawn = dice + level + random.normal(0, noise)
            rows += [
                {"arm": f"layer-{layer}", "repeat": repeat, "fold": math.nan, "dice": drawn + case}
                for case in (-0.1, 0.1)
            ]
        rows.append({"arm": "cnn", "repeat": repeat, "fold": math.nan, "dice": 0.0})
    return pd.DataFrame(rows)


def screen(**values: np.ndarray) -> pd.DataFrame:
    """A screen's table of these measures, and noise for the others; the CNN alone is first."""
    random = np.random.default_rng(3)
    table = pd.DataFrame({"layer": [CNN, *map(str, LAYERS)]})
    for name in MEASURES:
        table[name] = [99.0, *values.get(name, random.normal(size=10))]
        table[f"{name}_seconds"] = [math.nan, *[0.5] * 10]
    return table


def test_scores_are_means_over_cases_of_each_layer_and_run() -> None:
    scores = scores_by_layer(study(noise=0), "dice")
    assert [*scores.index] == LAYERS
    np.testing.assert_allclose(scores, TRUE[:, None] + [[0, 0.2, 0.1]])


def test_a_measure_that_knows_the_order_has_its_interval_above_zero_and_noise_has_not() -> None:
    rows = compared([screen(probe=TRUE, cka=-TRUE)], scores_by_layer(study(noise=0.01), "dice"), draws=200)
    by_name = rows.set_index("measure")
    assert by_name.loc["probe", "tau"] > 0.8
    assert by_name.loc["probe", "low"] > 0.5
    assert by_name.loc["cka", "tau"] == pytest.approx(-by_name.loc["probe", "tau"])
    assert by_name.loc["cka", "high"] < -0.5
    for name in ("coherence", "recovery"):
        assert by_name.loc[name, "low"] < 0 < by_name.loc[name, "high"]
    assert (by_name["seconds"] == 0.5).all()


def test_of_several_screens_the_mean_rank_counts_and_one_that_disagrees_widens_the_interval() -> None:
    scores = scores_by_layer(study(noise=0.001), "dice")
    agree = compared([screen(probe=TRUE), screen(probe=TRUE**3)], scores, draws=200).set_index("measure").loc["probe"]
    assert (agree["tau"], agree["each"]) == (pytest.approx(1), pytest.approx([1, 1]))
    assert agree["low"] > 0.9
    split = [screen(probe=TRUE), screen(probe=2 * TRUE), screen(probe=-TRUE)]
    split = compared(split, scores, draws=200).set_index("measure").loc["probe"]
    assert (split["tau"], split["each"]) == (pytest.approx(1), pytest.approx([1, 1, -1]))
    assert split["low"] < 0 < split["high"]


def test_the_ceiling_is_the_agreement_of_seeds() -> None:
    assert ceiling(scores_by_layer(study(noise=0.001), "dice").to_numpy()) > 0.9
    assert abs(ceiling(np.random.default_rng(0).normal(size=(10, 3)))) < 0.5
    assert math.isnan(ceiling(np.zeros((10, 1))))


def test_tau_by_hand() -> None:
    assert tau(np.array([1, 2, 3]), np.array([1, 3, 2])) == pytest.approx(1 / 3)  # two pairs agree, one does not


def test_what_does_not_fit_is_refused() -> None:
    half = study(noise=0).query("arm != 'layer-3' or repeat != 1")
    with pytest.raises(InputError, match="found no score of layer-3 in a run of other layers"):
        scores_by_layer(half, "dice")
    with pytest.raises(InputError, match="found 0 arms named layer-N, allowed: 3 or more"):
        scores_by_layer(study(noise=0).query("arm == 'cnn'"), "dice")
    scores = scores_by_layer(study(noise=0), "dice")
    with pytest.raises(InputError, match=r"screen.csv: found no layer 27"):
        compared([screen().head(10)], scores, draws=2)
