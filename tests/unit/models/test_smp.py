"""Networks of segmentation_models_pytorch: an optional extra, so most of this runs only where it is installed."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llm4seg.config import Config
from llm4seg.config.schema import Model
from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid, build_model
from llm4seg.models.saved import DESCRIPTION, WEIGHTS, load_trained
from llm4seg.training.engines.common import prepare
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT
from tests.tiny_llm import block_section, tiny_store

needs_smp = pytest.mark.skipif(
    find_spec("segmentation_models_pytorch") is None, reason="segmentation_models_pytorch is not installed"
)
SIZE = (64, 32)
CHOICES = [  # architecture, encoder, channels of the coarsest map
    ("unet", "resnet18", 512),
    ("unet++", "tu-resnet10t", 512),
    ("manet", "tu-regnetx_002", 368),
    ("linknet", "efficientnet-b0", 320),  # keeps a head that it does not use
    ("fpn", "tu-convnext_atto", 320),  # has no map at half resolution
    ("upernet", "mit_b0", 256),
    ("segformer", "tu-mobilenetv3_small_100", 576),
]
choices = pytest.mark.parametrize(("architecture", "encoder", "channels"), CHOICES)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return tiny_store(tmp_path_factory.mktemp("llm"))


def section(architecture: str, encoder: str, bottleneck: str = "identity", weights: str | None = None) -> Model:
    values = Config.load(ROOT / "params.yaml").model.model_dump()
    smp = {"architecture": architecture, "encoder": encoder, "weights": weights}
    changes = {"backbone": "smp", "smp": smp, "bottleneck": bottleneck, "llm": block_section().model_dump()}
    return Model.model_validate(values | changes)


def build(architecture: str, encoder: str, store: LayerStore | None = None, weights: str | None = None) -> Hybrid:
    torch.manual_seed(0)
    asked_for = section(architecture, encoder, "llm" if store else "identity", weights)
    return build_model(asked_for, store, spatial_dims=2, in_channels=1, out_channels=3, seed=0, size=SIZE)


def test_where_it_is_missing_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(InputError, match=r"^model\.backbone: smp needs .* pip install -e '\.\[smp\]' .*$"):
        build("unet", "resnet18")


@needs_smp
@choices
def test_with_nothing_in_the_bottleneck_it_is_the_librarys_own(architecture: str, encoder: str, channels: int) -> None:
    import segmentation_models_pytorch as smp

    ours, x = build(architecture, encoder).eval(), torch.randn(2, 1, *SIZE)
    torch.manual_seed(0)
    library = {"unet++": "unetplusplus"}.get(architecture, architecture)
    theirs = smp.create_model(library, encoder, encoder_weights=None, in_channels=1, classes=3).eval()
    assert torch.equal(ours(x), theirs(x))
    assert not ours.train()(x).isnan().any()


@needs_smp
@choices
@pytest.mark.usefixtures("group")
def test_the_block_sees_the_coarsest_map_and_gradients_reach_everything(
    architecture: str, encoder: str, channels: int, store: LayerStore
) -> None:
    model, seen = build(architecture, encoder, store).train(), list[torch.Size]()
    model.bottleneck.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    for _ in range(2):
        parallel(torch.randn(2, 1, *SIZE)).square().mean().backward()
    assert seen == [(2, channels, 2, 1)] * 2
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(InputError, match=r"multiples of 32"):
        model(torch.randn(1, 1, 48, 64))


@needs_smp
@choices
def test_training_computes_what_the_library_does(architecture: str, encoder: str, channels: int) -> None:
    """timm's norms hold an activation, which must survive when they are made to see all workers' samples."""
    model, x = build(architecture, encoder).eval(), torch.randn(2, 1, *SIZE)
    expected = model(x)
    prepare(model, Config.load(ROOT / "params.yaml").engine, x.device)
    assert torch.allclose(model(x), expected, atol=1e-4)


@needs_smp
def test_the_encoder_begins_with_the_weights_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file here instead of the hub's; it holds what the library's encoder for three channels does."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(1)
    pretrained = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    save_file(pretrained, tmp_path / "model.safetensors")
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda *where, filename, **which: str(tmp_path / filename))
    state = build("unet", "resnet18", weights="imagenet").encoder.state_dict()
    assert state["conv1.weight"].shape[1] == 1
    assert all(torch.equal(state[name], tensor) for name, tensor in pretrained.items() if name != "conv1.weight")


@needs_smp
def test_a_trained_model_needs_no_pretrained_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = build("unet", "resnet18")
    config = {
        "model": section("unet", "resnet18", weights="imagenet").model_dump(),
        "training": {"loss": "dice_ce", "seed": 0},
    }
    data = {"spatial_dims": 2, "channels": 1, "classes": ["a", "b"], "size": SIZE}
    save_file(model.trainable_state_dict(), tmp_path / WEIGHTS)
    (tmp_path / DESCRIPTION).write_text(json.dumps({"config": config, "llm": None, "data": data}))
    loaded = load_trained(tmp_path, tmp_path)
    assert torch.equal(loaded.state_dict()["encoder.conv1.weight"], model.state_dict()["encoder.conv1.weight"])


@needs_smp
@pytest.mark.parametrize(
    ("architecture", "encoder", "weights", "message"),
    [
        ("unet", "resnet7", None, r"model\.smp: unet with resnet7: Wrong encoder name"),
        ("unet", "tu-resnet7", None, r"model\.smp: unet with tu-resnet7: Unknown model"),
        ("unet++", "mit_b0", None, r"model\.smp: unet\+\+ with mit_b0: UnetPlusPlus is not support"),
        ("unet", "resnet18", "jft", r"model\.smp: unet with resnet18: Wrong pretrained weights"),
        ("unet", "tu-swin_tiny_patch4_window7_224", None, r"model\.smp\.encoder: .* refuses images of \[64, 32\]"),
        ("unet", "resnet18", "imagenet", r"model\.smp\.weights: imagenet cannot be fetched, allowed: null"),
    ],
)
def test_what_the_library_refuses_is_one_line(
    architecture: str, encoder: str, weights: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=message):
        build(architecture, encoder, weights=weights)
