"""`model.dynunet.strides: auto`: nnU-Net's own answers, and that trainings and models get them as numbers."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llm4seg.config import Config
from llm4seg.data.patch_size import patch_size, resolve_auto
from llm4seg.data.pooling import kernel_axes, pooling_strides
from llm4seg.data.prepared import Prepared
from llm4seg.models.saved import load_trained, read_metadata, save_trained
from llm4seg.training.inputs import training_inputs
from llm4seg.training.trainer import assemble
from llm4seg.utils.errors import InputError
from pipelines.split import split
from tests.finished_run import raw_case, write_cases
from tests.lesion_volumes import VOLUMES
from tests.tiny import tiny_config

ALL, PLANE, ROWS = (2, 2, 2), (1, 2, 2), (2, 1, 1)


@pytest.mark.parametrize(
    ("spacing", "size", "strides", "thin"),
    [  # strides and the number of levels with kernels of 1 across slices, as get_pool_and_conv_props of nnU-Net 2.8.1
        ((1, 1, 1), (128, 128, 128), [ALL] * 5, 0),
        ((10, 1.5625, 1.5625), (20, 256, 224), [PLANE, PLANE, ALL, ALL, PLANE], 2),
        ((3.0, 0.76, 0.76), (48, 192, 192), [PLANE, ALL, ALL, ALL, PLANE], 1),
        ((5.0, 0.74, 0.74), (28, 256, 256), [PLANE, PLANE, ALL, ALL, PLANE, PLANE], 2),
        ((1, 1, 1), (40, 56, 40), [ALL] * 3, 0),
        ((1, 1, 1), (7, 7, 7), [], 0),
        ((1, 1, 1), (11, 7, 7), [], 0),  # an axis alone needs 12
        ((1, 1, 1), (12, 7, 7), [ROWS], 0),
    ],
)
def test_nnunets_rule(spacing: Sequence[float], size: Sequence[int], strides: list[tuple[int, ...]], thin: int) -> None:
    found = pooling_strides(spacing, size, 99)
    assert [tuple(step) for step in found] == strides
    assert [extends[0] for extends in kernel_axes(spacing, found)] == [False] * thin + [True] * (
        len(strides) + 1 - thin
    )
    assert pooling_strides(spacing, size, 2) == found[:2]  # for a network of three levels


def test_sizes_and_strides_are_found_together() -> None:
    """Of 320 x 320 x 14 voxels: steps for them, then the longer axes of the plane in turn, until 128^3 are left."""
    sides, steps = patch_size(
        (0.8, 0.8, 6.0), (320, 320, 14), lambda size: pooling_strides((0.8, 0.8, 6.0), size, 5), 1, 4096
    )
    assert (sides, [tuple(step) for step in steps]) == (
        [320, 320, 14],
        [(2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 1), (2, 2, 1)],
    )
    # 512^3 becomes 128^3: by lengths of 7/8, 6/8, 5/8 and 4/8 of a power of two
    sides, steps = patch_size((1, 1, 1), (512, 512, 512), lambda size: pooling_strides((1, 1, 1), size, 9), 1, 4096)
    assert (sides, [tuple(step) for step in steps]) == ([128, 128, 128], [ALL] * 5)


AUTO: dict[str, Any] = {
    "data.spacing": [1, 1, 3],
    "model.backbone": "dynunet",
    "model.dynunet.strides": "auto",
    "training.patch.size": "auto",
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path).override(VOLUMES | AUTO)


@pytest.fixture
def data(config: Config) -> Prepared:
    """Volumes of 60 x 50 x 48 mm: of as many rows and columns, and 16 slices."""
    labels = np.zeros((60, 50, 48), np.uint8)
    labels[:4, :4, :12], labels[5:8, :4, :12] = 1, 2
    image = (1 + np.arange(labels.size, dtype=np.int32)).reshape(labels.shape)[None]
    cases = [raw_case(f"case-{number}", labels, image + number) for number in range(4)]
    return write_cases(config, cases, ("dark", "bright"))


def test_auto_becomes_numbers(config: Config, data: Prepared) -> None:
    """60 rows become 30, 15, 8 and 4, 50 columns 25, 13 and 7, and 16 slices, when rows are as far apart, 8 and 4."""
    found = resolve_auto(config, data)
    network = found.model.dynunet
    assert (found.training.patch.size, found.automatic) == ((64, 56, 16), [])
    assert network.strides == ((2, 2, 1), (2, 2, 2), (2, 2, 2))
    assert network.kernels == ((3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert network.filters == (16, 32, 64, 128)  # of five
    assert found.model.axis_strides(3) == (8, 8, 4)
    assert resolve_auto(config.override({"model.dynunet.strides": None}), data).training.patch.size == (64, 64, 16)


def test_a_training_and_its_model_have_the_numbers(config: Config, data: Prepared) -> None:
    """model.json has no `auto`, and what was written is read without the prepared data."""
    alone = {"model.bottleneck": "identity", "model.dynunet.filters": [2, 4, 4, 4, 4], "data.intensity": "unit"}
    config = config.override(alone | {"training.deep_supervision": True})
    split(config)
    data, _ = training_inputs(config)
    model = assemble(config, data)
    weights = config.paths.prepared.with_name("weights")
    save_file(model.trainable_state_dict(), weights)
    save_trained(config.paths.model, weights, config, data, "torch")
    shutil.rmtree(config.paths.prepared)
    read = load_trained(config.paths.model, config.paths.llm_used)
    assert read_metadata(config.paths.model)[1].dynunet.strides == ((2, 2, 1), (2, 2, 2), (2, 2, 2))
    images = torch.randn(1, 1, 16, 24, 8)
    assert torch.equal(read(images), model.eval()(images))
    assert model.strides == read.strides == (8, 8, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training.patch.size": [64, 60, 16]},
            r"^model\.dynunet\.strides: auto for these volumes: training\.patch\.size: found 60 along axis 1 of "
            r"\[64, 60, 16\], allowed: multiples of 16 \(model\.backbone\), the nearest are 48 and 64$",
        ),
        (
            {"training.patch.size": [8, 8, 4]},
            r"strides: found auto, but volumes this small leave 2 levels .*at least 3",
        ),
        (
            {"training.patch.size": [16, 16, 8], "training.deep_supervision": True},
            r"training\.deep_supervision: found true, allowed with fewer than 4 levels",
        ),
    ],
)
def test_what_does_not_go_with_the_strides_is_refused(
    config: Config, data: Prepared, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        resolve_auto(config.override(changes), data)
