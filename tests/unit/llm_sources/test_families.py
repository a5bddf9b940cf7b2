"""LLMs of many families, from a saved checkpoint over the layer store to the LLM block, against transformers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm4seg.llm.architecture import meta_model
from llm4seg.llm.store import LayerStore
from llm4seg.llm_sources.build_store import fill_store
from llm4seg.llm_sources.state_dict_conversion import convert_state_dict
from llm4seg.llm_sources.supported import check_supported
from llm4seg.models.bottleneck.layers import LLMLayers
from llm4seg.utils.errors import InputError
from tests.benchmarks.families import EQUAL, sweep
from tests.tiny_families import encoder_kinds, kinds
from tests.tiny_llm import SHAPE, block_section, save_llm, section, through_layers, tiny_llm

LAYERS, WINDOW = 4, 4  # the whole models read 9 tokens
SLIDING = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MULTIMODAL_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
DEEPSEEK_R1_DISTILL_QWEN = {
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "use_sliding_window": False,
    "sliding_window": WINDOW,
    "max_window_layers": 2,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama 3": ("llama", {"rope_parameters": LLAMA_3_ROPE}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "ministral": ("ministral", {"sliding_window": WINDOW, "layer_types": SLIDING}),
    "deepseek-r1-distill-qwen": ("qwen2", DEEPSEEK_R1_DISTILL_QWEN),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}),
    "qwen2.5-vl": ("qwen2_5_vl_text", {"rope_parameters": MULTIMODAL_ROPE}),
    "qwen3": ("qwen3", {}),
    "qwen3, experts": ("qwen3_moe", {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24}),
    "mixtral": ("mixtral", {"num_local_experts": 3}),
    "gpt-oss": ("gpt_oss", {"num_local_experts": 4, "sliding_window": WINDOW}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"sliding_window": WINDOW}),
    "gemma3": ("gemma3_text", {"sliding_window": WINDOW, "layer_types": SLIDING}),
    "phi": ("phi", {"num_key_value_heads": 4}),
    "phi3": ("phi3", {"sliding_window": WINDOW}),
    "gpt-neox": ("gpt_neox", {}),
    "gpt-neox, serial": ("gpt_neox", {"use_parallel_residual": False}),
    "stablelm": ("stablelm", {}),
    "starcoder2": ("starcoder2", {"sliding_window": WINDOW}),
    "persimmon": ("persimmon", {}),
    "nemotron": ("nemotron", {}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": WINDOW, "layer_types": SLIDING}),
    "cohere": ("cohere", {}),
    "granite": ("granite", {"attention_multiplier": 0.3, "residual_multiplier": 0.7, "embedding_multiplier": 5.0}),
    "glm": ("glm", {}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 1, 0, 1]}),
}


@dataclass(frozen=True)
class Case:
    """An LLM in a layer store, and what enters and leaves its layers in the whole model."""

    store: LayerStore
    inputs: list[Tensor]
    outputs: list[Tensor]
    last: Tensor

    def through(self, layers: Sequence[int], **changes: Any) -> Tensor:
        """What our layers make of what enters the first of them."""
        hidden = self.inputs[layers[0]]
        ours = LLMLayers(block_section(layer=tuple(layers), **{"attention": "causal", **changes}), self.store, 0).eval()
        with torch.no_grad():
            return ours(hidden, (hidden.shape[1],))


def with_head(model: Any) -> Any:
    """The same model with a head that predicts tokens, as checkpoints are published."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return model
    whole = MODEL_FOR_CAUSAL_LM_MAPPING[type(model.config)](model.config)
    setattr(whole, whole.base_model_prefix, model)
    return whole


def close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


def case_of(model: Any, store: LayerStore) -> Case:
    return Case(store, *through_layers(model))


def filled(root: Path, source: Path, layers: Sequence[int] = (2,)) -> LayerStore:
    return fill_store(root / "store", section(source), layers, root / "cache")


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind, changes = FAMILIES[request.param]
    root, model = tmp_path_factory.mktemp("llm"), tiny_llm(kind, **changes)
    source = save_llm(root / "source", with_head(model))
    return case_of(model, filled(root, source, range(LAYERS)))


def test_each_layer_computes_what_it_does_in_the_whole_llm(case: Case) -> None:
    """Biases, norms, experts, windows, rope and what differs from layer to layer: all from the config alone."""
    for layer in range(LAYERS):
        assert close(case.through([layer]), case.outputs[layer])


def test_layers_in_a_row_and_the_final_norm(case: Case) -> None:
    assert close(case.through([1, 2]), case.outputs[2])
    assert close(case.through([2, 3], norm=True), case.last)


def changed(folder: Path, config: dict[str, Any] | None = None, tensors: dict[str, Tensor] | None = None) -> Path:
    """A checkpoint's folder, after some entries of its config and some tensors were added."""
    path, weights = folder / "config.json", folder / "model.safetensors"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    save_file(load_file(weights) | (tensors or {}), weights)
    return folder


@pytest.mark.parametrize(
    ("kind", "buffers"),
    [
        (
            "gpt_neox",
            {"attention.bias": (1, 1, 64, 64), "attention.masked_bias": (), "attention.rotary_emb.inv_freq": 2},
        ),
        ("llama", {"self_attn.rotary_emb.inv_freq": 8}),
    ],
)
def test_buffers_of_old_checkpoints_are_passed_over(kind: str, buffers: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_llm(kind)
    source = save_llm(tmp_path / "source", with_head(model))
    prefix = {"gpt_neox": "gpt_neox", "llama": "model"}[kind]
    old = {f"{prefix}.layers.{n}.{name}": torch.ones(shape) for n in range(4) for name, shape in buffers.items()}
    case = case_of(model, filled(tmp_path, changed(source, tensors=old)))
    assert case.store.load(2).keys() == model.layers[2].state_dict().keys()
    assert close(case.through([2]), case.outputs[2])


def test_only_tensors_without_a_place_are_passed_over() -> None:
    """Some families list names that are old in some of their layers and in use in others."""
    whole = tiny_llm()
    model, tensors = meta_model(whole.config.to_dict()), whole.layers[2].state_dict()
    model._keys_to_ignore_on_load_unexpected = {r"mlp\."}
    assert convert_state_dict(model, "layers.2", tensors | {"mlp.old": torch.ones(1)}).keys() == tensors.keys()


def gemma3_that_sees() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
    text = {**SHAPE, "layer_types": SLIDING, "sliding_window": WINDOW}
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    return Gemma3ForConditionalGeneration(config).eval()


def qwen_that_sees() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"hidden_size": 64, "intermediate_size": 96, "depth": 4, "num_heads": 4, "out_hidden_size": 64}
    text = {**SHAPE, "rope_parameters": MULTIMODAL_ROPE}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


@pytest.mark.parametrize("make", [gemma3_that_sees, qwen_that_sees])
def test_the_part_that_reads_text_of_a_model_that_also_sees(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = make()
    text = whole.model.language_model
    source = changed(save_llm(tmp_path / "source", whole), tensors={"vision.norm.weight": torch.zeros(64)})
    case = case_of(text, filled(tmp_path, source, range(4)))
    assert all(torch.equal(case.store.load(2)[name], tensor) for name, tensor in text.layers[2].state_dict().items())
    assert close(case.through([2]), case.outputs[2])
    assert close(case.through([3], norm=True), case.last)


NOWHERE_IN_LAYER_3 = {
    "smollm3": {},
    "cohere2": {"sliding_window": WINDOW},
    "exaone4": {"sliding_window": WINDOW},
}


@pytest.mark.parametrize("kind", NOWHERE_IN_LAYER_3)
def test_other_positions_are_refused_where_a_layer_uses_none(kind: str, tmp_path: Path) -> None:
    """It is given them all the same: another rotation would change nothing, silently."""
    store = filled(tmp_path, save_llm(tmp_path / "source", tiny_llm(kind, **NOWHERE_IN_LAYER_3[kind])), range(LAYERS))
    hidden = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0))
    for layers in ([2], [3], [2, 3]):
        made = [
            LLMLayers(block_section(layer=layers, position=position), store, 0).eval()(hidden, (2, 3))
            for position in ("native", "none")
        ]
        assert torch.equal(*made) == (layers == [3])
    for position in ("axial", "released"):
        assert LLMLayers(block_section(layer=[2, 3], position=position), store, 0)
        message = rf"position: found {position}, allowed: native or none, since a {kind} rotates nothing in layer 3 \("
        with pytest.raises(InputError, match=message):
            LLMLayers(block_section(layer=3, position=position), store, 0)


def test_experts_do_not_keep_from_seeing_that_a_layer_rotates() -> None:
    """They cannot be chosen among without values."""
    values = tiny_llm("qwen3_moe", num_experts=3, num_experts_per_tok=2).config.to_dict()
    assert all(spec.rotates for spec in check_supported(meta_model(values), range(LAYERS)).values())


def test_a_checkpoint_with_the_same_layer_twice_is_refused(tmp_path: Path) -> None:
    """Two LLMs in one file, say: which one is meant must not be guessed."""
    source = save_llm(tmp_path / "source", tiny_llm())
    twice = {f"depth_decoder.{name}": tensor for name, tensor in load_file(source / "model.safetensors").items()}
    with pytest.raises(InputError, match=r"layers\.2 is there more than once: depth_decoder\.layers\.2, layers\.2$"):
        filled(tmp_path, changed(source, tensors=twice))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_and_nothing_else_of_it(dtype: torch.dtype, tmp_path: Path) -> None:
    """The weights keep their values; they, rope and all that is computed are float32, whatever config.json says."""
    from transformers import AutoModel

    source = save_llm(tmp_path / "source", tiny_llm("gemma2").to(dtype))
    whole = AutoModel.from_pretrained(source, dtype=torch.float32)
    said = {"dtype": "float16", "torch_dtype": "bfloat16", "use_cache": True, "output_attentions": True}
    case = case_of(whole, filled(tmp_path, changed(source, said)))
    assert {tensor.dtype for tensor in case.store.load(2).values()} == {dtype}
    for weights in ("pretrained", "random"):
        ours = LLMLayers(block_section(layer=2, weights=weights), case.store, 0)
        assert {tensor.dtype for tensor in (*ours.parameters(), *ours.buffers())} == {torch.float32}
    assert close(case.through([2]), case.outputs[2])


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3", "flex_attention"])
def test_the_attention_that_the_checkpoint_was_trained_with_does_not_matter(attention: str, tmp_path: Path) -> None:
    model = tiny_llm()
    written = {"_attn_implementation": attention, "attn_implementation": attention, "_flash_attn_2_enabled": True}
    case = case_of(model, filled(tmp_path, changed(save_llm(tmp_path / "source", model), written)))
    assert close(case.through([2]), case.outputs[2])


def test_a_window_is_kept_by_causal_attention_alone(tmp_path: Path) -> None:
    """Bidirectional attention, which no LLM was trained for, sees all tokens in every layer."""
    stores = {}
    for window in (WINDOW, 64):
        source = save_llm(tmp_path / f"source_{window}", tiny_llm("mistral", sliding_window=window))
        stores[window] = filled(tmp_path / str(window), source)
    hidden = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(0))
    same = {}
    for attention in ("causal", "bidirectional"):
        made = block_section(layer=2, attention=attention)
        narrow, wide = (LLMLayers(made, store, 0).eval()(hidden, (3, 3)) for store in stores.values())
        same[attention] = [torch.allclose(narrow[0, t], wide[0, t], atol=1e-6) for t in range(9)]
    assert same == {"causal": [True] * WINDOW + [False] * (9 - WINDOW), "bidirectional": [True] * 9}


REFUSED = {
    "gpt2": ({}, r"'gpt2' is not supported: its model has no list of `layers`"),
    "falcon": ({}, r"'falcon' is not supported: its model has no list of `layers`"),
    "bart": ({}, r"'bart' is not supported: its model has no list of `layers`"),
    "mamba": ({}, r"'mamba' is not supported: its model has no `rotary_emb`, so its positions are not rotary"),
    "qwen3_next": ({}, r"'qwen3_next' is not supported: layer 2 does not mix its tokens by masked attention"),
    "llama4_text": ({}, r"'llama4_text' is not supported: layer 2 does not look back in the usual way"),
    "deepseek_v2": ({}, r"'deepseek_v2' is not supported: layer 2 is not given its rotary positions as cosines and"),
    "gemma3n_text": ({}, r"'gemma3n_text' is not supported: what enters a layer is not simply what left"),
    "gemma4_text": (
        {"num_hidden_layers": 30, "hidden_size_per_layer_input": 8},
        r"'gemma4_text' is not supported: layer 2 is also given per_layer_input",
    ),
    "falcon_h1": ({}, r"'falcon_h1' is not supported: layer 2 keeps mamba\.mup_vector, which no checkpoint holds"),
    "gemma3_text": (
        {"use_bidirectional_attention": True},
        r"'gemma3_text' is not supported: layer 2 does not look back in the usual way, at all tokens or",
    ),
    "qwen2": ({"quantization_config": {"quant_method": "fp8"}}, r"'qwen2' is not supported: its weights are quantized"),
    "mllama": ({}, r"'mllama_text_model' is not supported: transformers builds no model of its text part alone"),
    "llama": ({"num_attention_heads": 3}, r"'llama': transformers cannot build it: .*attention heads"),
    "gemma5": ({}, r"found 'gemma5', which transformers does not know"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_supported_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    """In one line, before anything is written."""
    changes, message = REFUSED[kind]
    source = save_llm(tmp_path / "source", tiny_llm())
    (source / "config.json").write_text(json.dumps({"model_type": kind, "num_hidden_layers": 28, **changes}))
    with pytest.raises(InputError, match=rf"^the LLM's config: model_type:? ?{message}") as refused:
        filled(tmp_path, source)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "store").exists()


def test_a_layer_that_was_never_fetched_is_judged_too(tmp_path: Path) -> None:
    """A random layer needs no fetched one; here some layers are attention and the others are not."""
    small = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_value_head_dim": 8}
    source = save_llm(tmp_path / "source", tiny_llm("qwen3_5_text", **small))
    store = filled(tmp_path, source, [3])
    assert LLMLayers(block_section(layer=3, weights="random"), store, 0)
    with pytest.raises(InputError, match=r"'qwen3_5_text' is not supported: layer 2 does not mix its tokens by masked"):
        LLMLayers(block_section(layer=2, weights="random"), store, 0)


def test_what_transformers_cannot_draw_at_random_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path, save_llm(tmp_path / "source", tiny_llm("apertus")))
    assert LLMLayers(block_section(layer=2), store, 0)
    with pytest.raises(
        InputError, match=r"model\.llm\.weights: found random, but transformers cannot draw mlp\.act_fn\."
    ):
        LLMLayers(block_section(layer=2, weights="random"), store, 0)


def test_asking_draws_nothing_and_changes_nothing() -> None:
    """The meta model is used on, and random weights follow the seed alone."""
    model, state = meta_model(tiny_llm("mistral").config.to_dict()), torch.get_rng_state()
    config = dict(vars(model.config))
    check_supported(model, [1, 3])
    assert torch.equal(torch.get_rng_state(), state)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert vars(model.config) == config
    assert "forward" not in vars(model.layers[0])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("names", "least"), [(kinds, 80), (encoder_kinds, 10)], ids=["LLMs", "encoders"])
def test_no_kind_that_transformers_knows_is_silently_wrong(names: Callable[[], list[str]], least: int) -> None:
    """See docs/families.md, which the same command writes."""
    results = sweep(names())
    assert not [(kind, found) for kind, found in results.items() if any("WRONG" in result for result in found)]
    assert sum(EQUAL in found for found in results.values()) > least
