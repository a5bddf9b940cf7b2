"""A backbone is its section and its builder: both are there for each, and a new one needs nothing else."""

from pathlib import Path

import pytest
import torch
import yaml
from pydantic import PositiveInt
from torch import Tensor, nn

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.config.schema.backbone import BackboneSection
from llm4seg.data.prepared import Prepared
from llm4seg.models.backbones import BUILDERS, Backbone, IOShape, register
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import assemble, fit
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT


class Toy(BackboneSection):
    """One convolution down, one up."""

    name = "toy"
    title = "Toy of {channels} channels"
    spatial_dims = (2,)
    channels: PositiveInt

    @property
    def stride(self) -> int:
        return 4


class ToyModel(Model):
    toy: Toy


class ToyConfig(Config):
    model: ToyModel


class Up(nn.ConvTranspose2d):
    def forward(self, features: list[Tensor]) -> Tensor:
        return super().forward(features[-1])


class Down(nn.Conv2d):
    def forward(self, images_NCS: Tensor) -> list[Tensor]:
        return [super().forward(images_NCS)]


@pytest.fixture
def toy(config: Config, monkeypatch: pytest.MonkeyPatch) -> ToyConfig:
    """A config of a toy backbone around the LLM block, its builder registered for one test."""
    monkeypatch.setitem(BUILDERS, Toy, BUILDERS.get(Toy))

    @register(Toy)
    def build(section: Toy, shape: IOShape) -> Backbone:
        down = Down(shape.in_channels, section.channels, section.stride, section.stride)
        return Backbone(
            down, Up(section.channels, shape.out_channels, section.stride, section.stride), section.channels
        )

    values = config.plain()
    values["model"] |= {"backbone": "toy", "toy": {"channels": 6}}
    return ToyConfig.parse(values)


@pytest.mark.usefixtures("group")
def test_a_new_backbone_is_trained(toy: ToyConfig, tmp_path: Path) -> None:
    data = Prepared(toy.paths.prepared)
    steps = {"training.epochs": 1, "engine.name": "torch"}
    before = assemble(toy, data).trainable_state_dict()
    assert before["encoder.weight"].shape == (6, 1, 4, 4)
    run = LocalRun(tmp_path / "run")
    fit(toy.override(steps), run)
    (file,) = (tmp_path / "run").glob("checkpoint/weights.safetensors")
    from safetensors.torch import load_file

    after = load_file(file)
    assert {name.split(".")[0] for name in after} == {"encoder", "bottleneck", "decoder"}
    assert not [name for name in ("encoder.weight", "decoder.weight") if torch.equal(before[name], after[name])]


def test_what_a_section_says_of_its_network_is_checked(toy: ToyConfig) -> None:
    with pytest.raises(
        InputError, match=r"model\.backbone: found toy, allowed: any other, since data\.spatial_dims is 3"
    ):
        toy.override({"data.spatial_dims": 3, "data.size": [32, 32, 32]})
    with pytest.raises(InputError, match=r"data\.size: found 30, allowed: multiples of 4"):
        toy.override({"data.size": [30, 32]})
    with pytest.raises(InputError, match=r"model\.backbone: found 'tou'; input should be 'cmunext', .* or 'toy'"):
        toy.override({"model.backbone": "tou"})
    assert toy.model.chosen.title.format(**toy.model.chosen.model_dump()) == "Toy of 6 channels"


def test_every_backbone_has_a_name_a_builder_and_values() -> None:
    sections = [type_ for info in Model.model_fields.values() if isinstance(type_ := info.annotation, type)]
    backbones = [one for one in sections if issubclass(one, BackboneSection)]
    assert {*BUILDERS} == {*backbones}
    assert len(Model.sections()) == len(backbones)  # no name stands for two
    values = yaml.safe_load((ROOT / "params.yaml").read_text())["model"]
    assert [name for name, field in Model.sections().items() if field not in values] == []
    assert [one for one in backbones if not one.title or not set(one.spatial_dims) <= {2, 3}] == []
