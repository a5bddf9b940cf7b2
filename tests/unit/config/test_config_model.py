"""Rules of the config that belong to the model: layers, backbones and the image sizes that suit them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(ROOT / "params.yaml")


def test_layers_needed(config: Config) -> None:
    assert config.layers_needed() == {"default": [14]}
    assert config.override({"llm.layers": [3, 14, 1]}).layers_needed() == {"default": [1, 3, 14]}
    searching = config.override({"search.trials": 2, "llm.layers": [3]})
    assert searching.layers_used() == {"default": [*range(30)]}
    listed = searching.override({"search.space": {"model.llm.layer": [0, "7-8", [9, 2]]}})
    assert listed.layers_used() == {"default": [0, 2, 7, 8, 9, 14]}
    assert listed.layers_needed() == {"default": [0, 2, 3, 7, 8, 9, 14]}


@pytest.mark.parametrize(
    ("written", "layers"),
    [(7, (7,)), ("7", (7,)), ("3-5", (3, 4, 5)), ([3, 7], (3, 7)), ([9, 1], (9, 1)), ([3, 3], (3, 3))],
)
def test_layers_are_one_or_a_range_or_a_list(config: Config, written: Any, layers: tuple[int, ...]) -> None:
    assert config.override({"model.llm.layer": written}).model.llm.layer == layers
    searching = config.override({"search.trials": 1, "search.space": {"model.llm.layer": [written]}})
    assert searching.layers_used() == {"default": sorted({14, *layers})}


STRIDES = {
    "cmunext": 16,
    "unet": 16,
    "attention-unet": 16,
    "unet++": 16,
    "segresnet": 8,
    "dynunet": 16,
    "unetr": 16,
    "swin-unetr": 32,
    "smp": 32,
}


@pytest.mark.parametrize("backbone", Model.sections())
def test_stride_is_the_chosen_backbones(config: Config, backbone: str) -> None:
    chosen, stride = config.override({"model.backbone": backbone}), STRIDES[backbone]
    assert chosen.model.axis_strides(2) == (stride, stride)
    with pytest.raises(InputError, match=rf"data\.size: found {7 * stride // 2}, allowed: multiples of {stride}"):
        chosen.override({"data.size": [4 * stride, 7 * stride // 2]})


@pytest.mark.parametrize(
    "changes",
    [
        {"model.cmunext.dims": [4, 8], "model.cmunext.depths": [1, 1], "model.cmunext.kernels": [3, 3]},
        {"model.backbone": "unet", "model.unet.channels": [4, 8]},
        {"model.backbone": "attention-unet", "model.attention_unet.channels": [4, 8]},
        {"model.backbone": "segresnet", "model.segresnet.blocks_down": [1, 1], "model.segresnet.blocks_up": [1]},
    ],
)
def test_stride_follows_the_number_of_levels(config: Config, changes: dict[str, Any]) -> None:
    assert config.override(changes).model.axis_strides(2) == (2, 2)


def test_strides_by_axis(config: Config) -> None:
    """Sides are to be multiples of each axis's own; numbers stand for all axes."""
    dynunet = {"model.backbone": "dynunet", "model.dynunet.strides": [[1, 2], 2, [2, 1], 1]}
    chosen = config.override(dynunet | {"data.size": [16, 12]})
    assert chosen.model.axis_strides(2) == (4, 4)
    chosen = chosen.override({"model.dynunet.strides": [[1, 2], 2, [2, 1], [1, 2]], "data.size": [12, 8]})
    assert chosen.model.axis_strides(2) == (4, 8)
    with pytest.raises(InputError, match=r"data\.size: found 12 along axis 1 of \[12, 12\], allowed: multiples of 8 "):
        chosen.override({"data.size": [12, 12]})
    with pytest.raises(InputError, match=r"data\.size: found \[4, 8\], allowed: above \[4, 8\] on some axis"):
        chosen.override({"data.size": [4, 8]})


def test_strides_may_be_of_other_levels_than_a_presets_filters(config: Config, tmp_path: Path) -> None:
    """Until both are chosen."""
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(config.override({"model.dynunet.strides": [2, 2, 1, 1]}).plain())
    )
    loaded = Config.load(tmp_path / "params.yaml")
    assert loaded.model.dynunet.strides == (2, 2, 1, 1)
    with pytest.raises(InputError, match="strides must be one shorter than filters"):
        loaded.preset("dynunet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strides": [2, 2]}, r"model\.dynunet: strides must be one shorter than filters"),
        ({"strides": [3, 2, 2, 2]}, r"strides: found \[3, 2, 2, 2\]; allowed: null, auto, or for each step"),
        ({"strides": [[2, True], 2, 2, 2]}, r"strides: found .*; allowed: null, auto, or for each step"),
        ({"strides": "none"}, r"strides: found 'none'; allowed: null, auto, or"),
        ({"strides": "auto"}, r"strides: found auto, allowed with data\.grid: resize: null, or a list"),
        ({"strides": [[1, 2, 2], 2, 2, 2]}, r"strides: found \[1, 2, 2\], allowed: numbers or lists of 2, since"),
        ({"kernels": [[3, 3, 1], 3, 3, 3, 3]}, r"kernels: found \[3, 3, 1\], allowed: numbers or lists of 2, since"),
        ({"kernels": [[3, 2], 3, 3, 3, 3]}, r"kernels must be odd, found \[3, 2, 3, 3, 3, 3\]"),
        ({"kernels": [0, 3, 3, 3, 3]}, r"kernels: found \[0, .*; allowed: for each level an odd number"),
    ],
)
def test_strides_and_kernels_that_fit_no_network_are_refused(
    config: Config, changes: dict[str, Any], message: str
) -> None:
    network = {f"model.dynunet.{name}": value for name, value in changes.items()}
    with pytest.raises(InputError, match=message):
        config.override({"model.backbone": "dynunet"} | network)


@pytest.mark.parametrize(("backbone", "stride"), [("unet", 16), ("unet++", 16), ("dynunet", 16), ("swin-unetr", 32)])
def test_an_instance_norm_needs_two_positions(config: Config, backbone: str, stride: int) -> None:
    config.override({"model.backbone": backbone, "data.size": [stride, 2 * stride]})
    with pytest.raises(
        InputError, match=rf"data\.size: found \[{stride}, {stride}\], allowed: above {stride} on some axis"
    ):
        config.override({"model.backbone": backbone, "data.size": [stride, stride]})


def test_smp_is_for_two_dimensions(config: Config) -> None:
    with pytest.raises(
        InputError, match=r"model\.backbone: found smp, allowed: any other, since data\.spatial_dims is 3"
    ):
        config.override({"model.backbone": "smp", "data.spatial_dims": 3, "data.size": [64, 64, 64]})
