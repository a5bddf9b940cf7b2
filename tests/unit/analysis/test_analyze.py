"""The analysis of networks of which is known what their block does."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from llm4seg.analysis.analyze import analyze
from llm4seg.analysis.images import class_masks, pieces_of
from llm4seg.analysis.places import features_of
from llm4seg.analysis.results import AnalysisResult
from llm4seg.config import Config
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split
from llm4seg.utils.errors import InputError
from tests.unit.analysis.planted import (
    CELL,
    CopiesMask,
    ShufflesTokens,
    labels,
    planted,
    planted_data,
    subject,
)

Planted = tuple[Config, Prepared, Split]
IOUS = ("iou_best", "iou_otsu", "iou_area")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted_data(tmp_path_factory.mktemp("planted"))


def analyzed(data: Planted, block: Any, **changes: Any) -> AnalysisResult:
    config, prepared, split = data
    config = config.override({f"analysis.{name}": value for name, value in changes.items()})
    return analyze(subject(planted(block), prepared), split, config.analysis, config.evaluation, title=None)


@pytest.fixture(scope="module")
def copied(data: Planted) -> AnalysisResult:
    return analyzed(data, CopiesMask)


def test_a_block_that_copies_the_mask_into_its_tokens_scores_the_best(copied: AnalysisResult) -> None:
    after = copied.summary["classes"]["any"]["decoder_input"]
    assert {name: after[name]["mean"] for name in ("auroc", "probe", *IOUS)} == dict.fromkeys(
        ("auroc", "probe", *IOUS), 1.0
    )
    change = copied.summary["differences"]["decoder_input - encoder"]["classes"]["any"]
    assert change["auroc"]["low"] > 0.3
    assert change["probe"]["low"] > 0.3
    assert "a rise; chance is 0.5" in copied.summary["verdicts"][0]


def test_before_it_and_after_one_that_shuffles_there_is_the_floor(data: Planted, copied: AnalysisResult) -> None:
    shuffled = analyzed(data, ShufflesTokens)
    for result, place in ((copied, "encoder"), (shuffled, "decoder_input")):
        values = result.summary["classes"]["any"][place]
        assert values["auroc"]["low"] < 0.5 < values["auroc"]["high"]
        assert values["probe"]["low"] < 0.5 < values["probe"]["high"]
        for name in IOUS:
            assert values[name]["mean"] == pytest.approx(values[name]["shifted"], abs=0.06)
    # nothing but the order of the tokens has changed, which the spectrum does not see
    ranks = [one.summary["tokens"]["decoder_input"]["effective_rank"]["mean"] for one in (copied, shuffled)]
    assert ranks[0] == pytest.approx(ranks[1], rel=1e-5)


def test_rows_have_each_image_class_and_place_once(copied: AnalysisResult) -> None:
    keys = copied.classes[["case", "class", "place"]]
    assert len(keys) == len(keys.drop_duplicates()) == 20 * 3 * 2
    assert len(copied.tokens) == 20 * 2
    # the mean of what the tables say is what the summary says
    own = copied.classes.query("`class` == 'round' and place == 'encoder'")
    assert copied.summary["classes"]["round"]["encoder"]["auroc"]["mean"] == pytest.approx(
        own["auroc"].mean(), abs=1e-6
    )
    one = copied.classes.query("case == 'c21' and `class` == 'rare' and place == 'encoder'")
    cells = labels(21)[::CELL, ::CELL] == 2
    assert one["mask_share"].item() == cells.mean() == one["iou_best_everything"].item()


def test_images_without_a_class_are_left_out_and_counted(copied: AnalysisResult) -> None:
    absent = sum(not (labels(number) == 2).any() for number in range(20, 39)) + 1
    assert copied.summary["left_out"] == {"any": 1, "round": 1, "rare": absent}
    assert copied.summary["classes"]["rare"]["encoder"]["auroc"]["n"] == 20 - absent
    empty = copied.classes.query("case == 'c39'")
    assert empty["auroc"].isna().all()
    assert (empty["mask_share"] == 0).all()


def test_the_cnn_alone_is_measured_at_its_encoder(data: Planted, copied: AnalysisResult) -> None:
    alone = analyzed(data, None)
    assert alone.summary["places"] == ["encoder"]
    assert alone.summary["differences"] == {}
    for name in ("auroc", "iou_area", "probe"):  # as in the network whose block comes after it
        assert alone.summary["classes"]["any"]["encoder"][name] == copied.summary["classes"]["any"]["encoder"][name]
    assert alone.summary["verdicts"][0].startswith("No block: only encoder is measured")
    assert "chance is 0.5" in alone.summary["verdicts"][1]


def test_one_images_numbers_do_not_depend_on_the_others(data: Planted, copied: AnalysisResult) -> None:
    config, prepared, split = data
    fewer = Split("by hand", 0, split.train, (), ("c25", "c22"), (), ())
    result = analyze(subject(planted(CopiesMask), prepared), fewer, config.analysis, config.evaluation, title=None)
    for whole, part in ((copied.classes, result.classes), (copied.tokens, result.tokens)):
        for case in ("c22", "c25"):
            rows = [table[table["case"] == case].reset_index(drop=True) for table in (whole, part)]
            assert rows[0].equals(rows[1])


def test_classes_can_be_chosen(data: Planted) -> None:
    result = analyzed(data, CopiesMask, classes=["rare"], probe_cases=0, field_cases=0)
    assert set(result.classes["class"]) == {"rare"}
    assert result.summary["headline"] == "rare"
    assert result.summary["receptive_field"] == {}
    assert result.classes["probe"].isna().all()
    with pytest.raises(InputError, match=r"analysis\.classes: found 'tumor', allowed: any, round, rare"):
        analyzed(data, CopiesMask, classes=["tumor"])


def test_a_part_without_cases_is_refused(data: Planted) -> None:
    with pytest.raises(InputError, match=r"analysis\.part: found val, which has no case in the split"):
        analyzed(data, CopiesMask, part="val")


def test_a_probe_that_has_nothing_to_learn_from_says_why(data: Planted) -> None:
    result = analyzed(data, CopiesMask, probe_cases=2, classes=["rare", "round"])
    assert set(result.summary["no_probe"]) <= {"rare", "round"}
    assert "rare" in result.summary["no_probe"]
    assert "probe" not in result.summary["classes"]["rare"]["encoder"]


def test_at_the_resolution_of_the_image(data: Planted) -> None:
    """A map upsampled from cells cannot be as sharp as the mask, but its order is nearly right."""
    result = analyzed(data, CopiesMask, at="image", shifts=5, probe_cases=0, field_cases=0)
    after = result.summary["classes"]["any"]["decoder_input"]
    assert after["auroc"]["mean"] > 0.98
    assert 0.6 < after["iou_area"]["mean"] < 1
    row = result.classes.query("case == 'c21' and `class` == 'any' and place == 'encoder'")
    assert row["mask_share"].item() == pytest.approx((labels(21) > 0).mean())


def test_the_receptive_field_of_a_pooled_cell_is_the_cell(copied: AnalysisResult) -> None:
    assert copied.summary["receptive_field"]["encoder"] == {"50": CELL, "95": CELL} or math.isclose(
        copied.summary["receptive_field"]["encoder"]["95"], CELL, abs_tol=1
    )


def test_examples_are_the_best_the_median_and_the_worst(data: Planted) -> None:
    result = analyzed(data, ShufflesTokens, probe_cases=0, field_cases=0)
    own = result.classes.query("`class` == 'any' and place == 'decoder_input'").dropna(subset="auroc")
    found = [result.summary["examples"][role]["decoder_input"] for role in ("best", "median", "worst")]
    assert found == pytest.approx(
        [own["auroc"].max(), np.sort(own["auroc"])[::-1][len(own) // 2], own["auroc"].min()], abs=1e-4
    )
    assert result.examples["best/decoder_input"].shape == (8, 8)
    assert result.examples["best/mask"].shape == result.examples["best/image"].shape[1:] == (32, 32)
    assert float(result.examples["worst/encoder"].max()) == 1.0


def test_ignored_pixels_are_of_no_class() -> None:
    scheme = LabelScheme(("a", "b"), ignore=True)
    labels_S = torch.tensor([[0, 1, 2, IGNORE]], dtype=torch.uint8)
    masks = class_masks(labels_S, scheme, ["any", "b"])
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "any": [[False, True, True, False]],
        "b": [[False, False, True, False]],
    }


def test_a_map_is_of_one_image_alone(data: Planted) -> None:
    _, prepared, _ = data
    model = planted(CopiesMask)
    (piece,) = pieces_of(prepared, "c3")
    found = features_of(model, piece.image)
    assert found.tokens["encoder"].shape == (64, 6)
    assert found.tokens["encoder"].dtype == torch.float32
