"""Vision transformers, from a saved checkpoint over the layer store to the block's layers, against transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm4seg.llm.architecture import meta_model
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.llm_sources.supported import check_supported
from llm4seg.models.bottleneck.layers import LLMLayers
from llm4seg.utils.errors import InputError
from tests.tiny_llm import block_section, save_llm, section
from tests.tiny_vision import PATCH, SHAPE, encoder_store, layers_of, through_encoder, tiny_encoder, varied

LAYERS = 4
SQUARE, WIDE = (4, 4), (2, 5)  # ViT and SigLIP take images of one size alone
DINOV3: dict[str, Any] = {"num_register_tokens": 2, "rope_theta": 50.0, "layerscale_value": 0.5}
ENCODERS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "vit": ("vit", {}, SQUARE),
    "vit without biases": ("vit", {"qkv_bias": False}, SQUARE),
    "deit": ("deit", {}, SQUARE),
    "vit-mae": ("vit_mae", {}, SQUARE),
    "ijepa": ("ijepa", {}, SQUARE),
    "dinov2": ("dinov2", {"mlp_ratio": 2, "layerscale_value": 0.5, "drop_path_rate": 0.3}, WIDE),
    "dinov2, gated": ("dinov2", {"use_swiglu_ffn": True}, WIDE),
    "dinov2 with registers": ("dinov2_with_registers", {"num_register_tokens": 3}, WIDE),
    "dinov3": ("dinov3_vit", DINOV3 | {"drop_path_rate": 0.3}, WIDE),
    "dinov3, gated": ("dinov3_vit", DINOV3 | {"use_gated_mlp": True, "hidden_act": "silu"}, WIDE),
    "siglip": ("siglip_vision_model", {}, SQUARE),
    "aimv2": ("aimv2_vision_model", {}, SQUARE),
}


@pytest.fixture(scope="module", params=ENCODERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    kind, changes, grid = ENCODERS[request.param]
    root, model = tmp_path_factory.mktemp("encoder"), tiny_encoder(kind, **changes)
    store = filled(root, save_llm(root / "source", model))
    return store, grid, through_encoder(model, grid)


def filled(root: Path, source: Path, layers: tuple[int, ...] = (0, 1, 2, 3)) -> LayerStore:
    return fill_store(root / "store", section(source), layers, root / "cache")


def through(store: LayerStore, layers: list[int], hidden_NTE: Tensor, grid: tuple[int, ...], **changes: Any) -> Tensor:
    """What our layers make of hidden states, which may begin with class and register tokens."""
    ours = LLMLayers(block_section(layer=layers, **changes), store, 0).eval()
    with torch.no_grad():
        return ours(hidden_NTE, grid)


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_each_layer_computes_what_it_does_in_the_whole_encoder(case: Any) -> None:
    """Biases, norms, LayerScale, gates and DINOv3's rows and columns: all from the config alone."""
    store, grid, (inputs, outputs, _) = case
    for layer in range(LAYERS):
        assert close(through(store, [layer], inputs[layer], grid), outputs[layer])
        assert not close(inputs[layer], outputs[layer])


def test_layers_in_a_row_and_the_final_norm(case: Any) -> None:
    store, grid, (inputs, outputs, last) = case
    assert close(through(store, [1, 2], inputs[1], grid), outputs[2])
    assert close(through(store, [2, 3], inputs[2], grid, norm=True), last)


def test_dinov3s_patches_without_class_and_register_tokens(tmp_path: Path) -> None:
    """As in the block: transformers' layers on patches alone, rotated as the whole encoder rotates them."""
    whole = tiny_encoder("dinov3_vit", **DINOV3)
    store = filled(tmp_path, save_llm(tmp_path / "source", whole))
    hidden_NTE = torch.randn(2, 10, 64, generator=torch.Generator().manual_seed(0))
    rotation = whole.rope_embeddings(torch.zeros(1, 3, 2 * PATCH, 5 * PATCH))
    with torch.no_grad():
        rotated, not_rotated = (
            layers_of(whole)[2](hidden_NTE, position_embeddings=one)
            for one in (rotation, (torch.ones_like(rotation[0]), torch.zeros_like(rotation[1])))
        )
    assert close(through(store, [2], hidden_NTE, WIDE), rotated)
    assert close(through(store, [2], hidden_NTE, WIDE, position="none"), not_rotated)
    assert not close(through(store, [2], hidden_NTE, (5, 2)), rotated)
    assert not close(rotated, not_rotated)


def vit_with_head() -> tuple[Any, Any]:
    from transformers import ViTConfig, ViTForImageClassification

    whole = ViTForImageClassification(ViTConfig(**SHAPE))
    return whole, whole.vit


def dinov2_with_head() -> tuple[Any, Any]:
    from transformers import Dinov2Config, Dinov2ForImageClassification

    whole = Dinov2ForImageClassification(Dinov2Config(**SHAPE))
    return whole, whole.dinov2


def siglip_of_images_and_texts() -> tuple[Any, Any]:
    """Whose towers have layers of equal names and shapes, which only their prefix tells apart."""
    from transformers import SiglipConfig, SiglipModel

    text = {name: SHAPE[name] for name in SHAPE if "size" not in name or "hidden" in name or "intermediate" in name}
    text |= {"vocab_size": 32, "projection_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    whole = SiglipModel(SiglipConfig(text_config=text, vision_config=SHAPE))
    return whole, whole.vision_model


def clip_of_images_and_texts() -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPModel

    text = {name: SHAPE[name] for name in SHAPE if "size" not in name or "hidden" in name or "intermediate" in name}
    text |= {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    whole = CLIPModel(CLIPConfig(text_config=text, vision_config=SHAPE, projection_dim=16))
    return whole, whole.vision_model


@pytest.mark.parametrize(
    "make", [vit_with_head, dinov2_with_head, siglip_of_images_and_texts, clip_of_images_and_texts]
)
def test_an_encoder_inside_a_checkpoint_of_more(make: Any, tmp_path: Path) -> None:
    """As checkpoints are published: with a head, or beside an encoder of texts."""
    torch.manual_seed(0)
    whole, encoder = make()
    varied(whole.eval())
    store = filled(tmp_path, save_llm(tmp_path / "source", whole))
    inputs, outputs, _ = through_encoder(encoder)
    assert len(inputs) == LAYERS
    for layer in range(LAYERS):
        assert close(through(store, [layer], inputs[layer], SQUARE), outputs[layer])
    assert store.norm_sha256 is not None


def test_names_of_files_that_older_transformers_wrote(tmp_path: Path) -> None:
    """Those on the hub: `vit.encoder.layer.0.attention.attention.query.weight`, whatever is written today."""
    from safetensors.torch import load_file

    whole, _ = vit_with_head()
    names = load_file(save_llm(tmp_path / "source", whole) / "model.safetensors").keys()
    assert "vit.encoder.layer.0.attention.attention.query.weight" in names
    assert "attention.q_proj.weight" in filled(tmp_path, tmp_path / "source").load(0)


def test_a_store_says_that_its_layers_are_an_encoders(tmp_path: Path) -> None:
    store = encoder_store(tmp_path, "dinov3_vit", layers=(1,))
    described = json.loads((store.folder / "config.json").read_text())["layer_specs"]["3"]
    assert described == {
        "inputs": ["position_embeddings"],
        "layer_type": None,
        "window": None,
        "rotates": True,
        "encoder": True,
    }
    assert store.spec(3).encoder
    assert encoder_store(tmp_path / "vit").spec(3).rotates is False


def test_half_precision_weights_and_nothing_else_of_it(tmp_path: Path) -> None:
    model = tiny_encoder("dinov2").bfloat16()
    store = filled(tmp_path, save_llm(tmp_path / "source", model))
    inputs, outputs, _ = through_encoder(model.float())
    assert {tensor.dtype for tensor in store.load(2).values()} == {torch.bfloat16}
    assert close(through(store, [2], inputs[2], SQUARE), outputs[2])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "swin": ({}, r"'swin' is not supported: what enters a layer is not simply what left the one before"),
    "convnext": ({}, r"'convnext' is not supported: its (model has no list of `layers`|config has no num_hidden_)"),
    "resnet": ({}, r"'resnet' is not supported: its config has no num_hidden_layers"),
    "beit": (
        SHAPE | {"use_relative_position_bias": True},
        r"'beit' is not supported: layer 0 is also given resolution",
    ),
    "vitdet": (SHAPE, r"'vitdet' is not supported: what enters a layer is not simply what left the one before"),
    "pixtral": (SHAPE, r"'pixtral' is not supported: layer 0 is (given other positions than|also given position_ids)"),
    "dinov2": (
        {"quantization_config": {"quant_method": "fp8"}},
        r"'dinov2' is not supported: its weights are quantized",
    ),
    "vit": (SHAPE | {"hidden_act": "none"}, r"'vit': transformers cannot build it: "),
    "align": ({}, r"'align_vision_model' is not supported: "),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_supported_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    """In one line, before anything is written."""
    changes, message = REFUSED[kind]
    source = save_llm(tmp_path / "source", tiny_encoder())
    (source / "config.json").write_text(json.dumps({"model_type": kind, **changes}))
    with pytest.raises(InputError, match=rf"^the LLM's config: model_type:? ?{message}") as refused:
        filled(tmp_path, source, (0,))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "store").exists()


def test_a_layer_beyond_the_last_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.llm\.layer.*: found layer 4, allowed: 0 to 3 \(source\)"):
        filled(tmp_path, save_llm(tmp_path / "source", tiny_encoder()), (4,))


def test_a_checkpoint_of_text_alone_is_refused(tmp_path: Path) -> None:
    """Its config promises an encoder of images."""
    from transformers import LlamaConfig, LlamaModel

    text = LlamaModel(LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4))
    source = save_llm(tmp_path / "source", text)
    (source / "config.json").write_text(json.dumps(tiny_encoder().config.to_dict()))
    with pytest.raises(InputError, match=r"tensor input_layernorm\.weight has no place in a ViTLayer|has no tensor"):
        filled(tmp_path, source)


def test_asking_draws_nothing_and_changes_nothing() -> None:
    """A masked autoencoder draws patches; the meta model is used on, and random weights follow the seed alone."""
    model, state = meta_model(tiny_encoder("vit_mae").config.to_dict()), torch.get_rng_state()
    config = dict(vars(model.config))
    check_supported(model, [1, 3])
    assert torch.equal(torch.get_rng_state(), state)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert vars(model.config) == config
    assert all("forward" not in vars(layer) for layer in layers_of(model))
