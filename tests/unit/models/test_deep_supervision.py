"""Heads at coarser resolutions: where they are, that training reaches them, and that predictions do without."""

from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from llm4seg.config import Config
from llm4seg.models import Hybrid, build_model
from llm4seg.utils.errors import InputError
from tests.tiny import PARAMS

# strides of the maps with a head: all but the coarsest of the decoder
NETWORKS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "cmunext": ({"dims": [4, 5, 6, 7, 8], "depths": [1] * 5, "kernels": [3] * 5}, [2, 4]),
    "unet": ({"channels": [4, 5, 6, 7, 8]}, [2, 4]),
    "attention-unet": ({"channels": [4, 5, 6, 7]}, [2]),
    "segresnet": ({"filters": 8, "blocks_down": [1] * 4, "blocks_up": [1] * 3}, [2]),
    "dynunet": ({"filters": [4, 5, 6, 7, 8], "kernels": [3] * 5}, [2, 4]),
    "unetr": ({"feature_size": 2, "hidden_size": 12, "mlp_size": 16, "heads": 3}, [2, 4]),
    "swin-unetr": ({"feature_size": 12, "depths": [1] * 4, "window": 4}, [2, 4, 8]),
}


def build(name: str, dims: int, deep_supervision: bool) -> tuple[Hybrid, torch.Tensor]:
    """A small network, and images for it."""
    field = name.replace("-", "_")
    network = {f"model.{field}.{parameter}": value for parameter, value in NETWORKS[name][0].items()}
    size = [32] * (dims - 1) + [64]
    images = {"data.spatial_dims": dims, "data.size": size, "training.deep_supervision": deep_supervision}
    alone = {"model.backbone": name, "model.bottleneck": "identity"}
    config = Config.load(PARAMS).override(network | images | alone)
    torch.manual_seed(0)
    numbers = {
        "spatial_dims": dims,
        "in_channels": 1,
        "out_channels": 3,
        "seed": 0,
        "deep_supervision": deep_supervision,
    }
    return build_model(config.model, None, size=size, **numbers), torch.randn(2, 1, *size)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("group")
def test_coarser_logits_are_there_in_training_alone(name: str, dims: int) -> None:
    """And all heads are trained, or DistributedDataParallel would stop at the second step."""
    model, images = build(name, dims, True)
    parallel = DistributedDataParallel(model)
    for _ in range(2):
        levels = parallel(images)
        sum(logits.square().mean() for logits in levels).backward()
    strides = [1, *NETWORKS[name][1]]
    sizes = [(2, 3, *(side // stride for side in images.shape[2:])) for stride in strides]
    assert [logits.shape for logits in levels] == sizes
    assert all(parameter.grad is not None for parameter in model.parameters())
    plain, _ = build(name, dims, False)
    shared = {tensor: value for tensor, value in model.state_dict().items() if "supervised" not in tensor}
    plain.load_state_dict(shared)
    assert len(shared) == len(model.state_dict()) - 2 * len(strides[1:])
    assert torch.equal(model.eval()(images), plain.eval()(images))


def test_a_map_reaches_the_head_of_its_level() -> None:
    """The logits of each level are the head's convolution of what that step of the decoder returned."""
    model, images = build("dynunet", 2, True)
    decoder, maps = model.decoder, list[torch.Tensor]()
    for step in decoder.steps:
        step.register_forward_hook(lambda module, inputs, out: maps.append(out))
    _, half, quarter = model(images)
    assert torch.equal(half, decoder.supervised[1](maps[2]))
    assert torch.equal(quarter, decoder.supervised[0](maps[1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.backbone": "unet++"},
            r"training\.deep_supervision: found true, allowed with model\.backbone: unet\+\+: false; those that have "
            "it are cmunext, unet, attention-unet, segresnet, dynunet, unetr, swin-unetr$",
        ),
        (
            {"model.backbone": "unet", "model.unet.channels": [4, 8, 8]},
            r"training\.deep_supervision: found true, allowed with fewer than 4 levels \(model\.backbone\): false",
        ),
    ],
)
def test_networks_without_such_levels_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config.load(PARAMS).override({"training.deep_supervision": True} | changes)
