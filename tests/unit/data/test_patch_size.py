"""`training.patch.size: auto`: the rule by hand, and that what reads volumes gets its answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from llm4seg.config import Config
from llm4seg.data.patch_size import patch_size, resolve_auto
from llm4seg.data.prepared import Prepared
from llm4seg.training.inputs import training_inputs
from llm4seg.utils.errors import InputError
from pipelines.split import split
from tests.finished_run import raw_case, write_cases
from tests.lesion_volumes import VOLUMES
from tests.tiny import tiny_config


@pytest.mark.parametrize(
    ("spacing", "median", "step", "tokens", "expected"),
    [
        # more than there is room for: axes in turn down to 128 each
        ((1, 1, 1), (512, 512, 512), 16, 4096, [128, 128, 128]),
        # 8 x 8 x 8 tokens are too many, as are 6 x 7 x 7 = 294; 6 x 6 x 7 = 252 are not
        ((1, 1, 1), (512, 512, 512), 16, 256, [96, 96, 112]),
        # small volumes whole, rounded up
        ((1, 1, 1), (40, 52, 30), 16, 4096, [48, 64, 32]),
        ((1, 1, 1), (48, 64.0, 32), 16, 4096, [48, 64, 32]),
        # cubes of 304.8 mm: 406.4 x 406.4 x 101.6 voxels, of 480 x 480 x 100. 416 x 416 x 128; slices to 64 (ratios
        # 1.28 and 0.96 against 0.87); the plane in turn to 288 (0.6); slices to 32 (0.64); the plane to 256: 128^3
        ((0.75, 0.75, 3.0), (480, 480, 100), 32, 4096, [256, 256, 32]),
        # the same with axes and numbers in another order
        ((3.0, 0.75, 0.75), (100, 480, 480), 32, 4096, [32, 256, 256]),
        # a volume of one slice
        ((1, 1, 5), (300, 200, 1), 16, 4096, [304, 208, 16]),
        # a token is the least, however few are allowed
        ((1, 1, 1), (20, 20, 20), 16, 1, [16, 16, 16]),
        ((1, 1, 1), (512, 512, 512), 256, 1, [256, 256, 256]),
    ],
)
def test_the_rule(
    spacing: Sequence[float], median: Sequence[float], step: int, tokens: int, expected: list[int]
) -> None:
    assert patch_size(spacing, median, lambda size: [[step] * 3], 1, tokens)[0] == expected


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path).override(VOLUMES | {"data.spacing": [1, 1, 1], "training.patch.size": "auto"})


@pytest.fixture
def data(config: Config) -> Prepared:
    """Volumes of 30, 40, 50, 60 rows; 21 columns; 9 slices: the median is 45 x 21 x 9."""
    cases = []
    for number in range(4):
        labels = np.zeros((30 + 10 * number, 21, 9), np.uint8)
        labels[:4, :4, :4], labels[5:8, :4, :4] = 1, 2
        image = (1 + np.arange(labels.size, dtype=np.int32)).reshape(labels.shape)[None]
        cases.append(raw_case(f"case-{number}", labels, image))
    return write_cases(config, cases, ("dark", "bright"))


def test_a_training_reads_patches_of_that_size(config: Config, data: Prepared) -> None:
    """Of a network with a stride of 4; the same with fewer training cases, and without a block."""
    assert config.model.axis_strides(3) == (4, 4, 4)
    split(config)
    for changes in ({}, {"training.fraction": 0.5}, {"model.bottleneck": "identity"}):
        assert training_inputs(config.override(changes))[0].size == (48, 24, 12)
    # 12 x 6 x 3 = 216 tokens; sides are 1.07, 1.14 and 1.33 medians: slices (12 x 6 x 2), columns (12 x 5 x 2), rows
    # twice (10 x 5 x 2 = 100)
    bounded = resolve_auto(config.override({"model.llm.max_tokens": 100}), data)
    assert bounded.training.patch.size == (40, 20, 8)
    pooled = resolve_auto(config.override({"model.llm.pool": 4}), data)
    assert pooled.input_size == (48, 32, 16)


def test_given_sizes_stay(config: Config, data: Prepared) -> None:
    given = config.override({"training.patch.size": [16, 16, 8]})
    assert resolve_auto(given, data) is given


def test_what_does_not_go_with_the_size_is_refused(config: Config, data: Prepared) -> None:
    turned = config.override({"training.augment.quarter_turns": True})
    message = r"^training\.patch\.size: auto for these volumes: .*quarter_turns: found true.*\[48, 24, 12\]"
    with pytest.raises(InputError, match=message):
        resolve_auto(turned, data)
