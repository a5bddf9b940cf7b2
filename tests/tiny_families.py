"""A small config of any kind of LLM or image encoder that transformers knows: its default values, with small sizes."""

from typing import Any

LAYERS, HEAD_DIM, WINDOW, ROPE_DIM = 6, 16, 4, 8
SIZES = {
    64: ("hidden_size", "max_position_embeddings"),
    96: ("intermediate_size", "dense_intermediate_size", "ffn_hidden_size", "intermediate_size_mlp"),
    128: ("vocab_size", "vocab_size_per_layer_input", "mamba_d_ssm"),
    32: (
        "image_size",
        "expert_ffn_hidden_size",
        "moe_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_expert_intermediate_size",
        "shared_experts_intermediate_size",
        "shared_intermediate_size",
    ),
    HEAD_DIM: (
        "global_head_dim",
        "head_dim",
        "kv_channels",
        "kv_lora_rank",
        "mamba_d_head",
        "q_lora_rank",
        "qk_head_dim",
        "query_pre_attn_scalar",
        "swa_head_dim",
        "v_head_dim",
    ),
    ROPE_DIM: (
        "hidden_size_per_layer_input",
        "index_head_dim",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "mamba_d_state",
        "mamba_n_heads",
        "patch_size",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
    ),
    4: (
        "attention_chunk_size",
        "index_topk",
        "linear_num_value_heads",
        "moe_num_experts",
        "n_routed_experts",
        "num_attention_heads",
        "num_experts",
        "num_local_experts",
        "sliding_window",
        "swa_num_attention_heads",
    ),
    2: (
        "eos_token_id",
        "index_n_heads",
        "linear_num_key_heads",
        "moe_k",
        "moe_topk",
        "num_experts_per_tok",
        "num_experts_per_token",
        "num_global_key_value_heads",
        "num_key_value_heads",
        "swa_num_key_value_heads",
        "zero_expert_num",
    ),
    1: ("bos_token_id", "n_group", "n_shared_experts", "topk_group"),
    0: ("num_kv_shared_layers", "pad_token_id"),
}
SMALL = {name: size for size, names in SIZES.items() for name in names}
STAGES = ("stage_names", "out_features", "out_indices")  # follow from the number of layers
# null by default, and yet needed
NEEDED = {
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "num_key_value_heads",
    "pad_token_id",
    "q_lora_rank",
}


def kinds() -> list[str]:
    """The model types of transformers' causal and image-text-to-text models."""
    from transformers.models.auto import modeling_auto as auto

    return sorted({*auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES})


def encoder_kinds() -> list[str]:
    """The model types of transformers' models that read images, and whose config has no part for texts."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return sorted(kind for kind in CONFIG_MAPPING if _reads_images(kind))


def _reads_images(kind: str) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        model = MODEL_MAPPING[CONFIG_MAPPING[kind]]
        return getattr(model, "main_input_name", None) == "pixel_values" and text_part(kind).model_type == kind
    except Exception:  # its packages are not installed, it has no base model, or its defaults contradict each other
        return False


def text_part(kind: str) -> Any:
    """The default config of a kind; of a multimodal model, its text config."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[kind]().get_text_config(decoder=True)


def small_config(kind: str) -> Any:
    """The default config with small sizes. Where values depend on each other in other ways, transformers raises."""
    text = text_part(kind)
    values = {name: value for name, value in text.to_dict().items() if name not in STAGES}
    small = {name: size for name, size in SMALL.items() if values.get(name) is not None or name in NEEDED & {*values}}
    if "qk_rope_head_dim" in values:
        small["head_dim"] = ROPE_DIM
    if values.get("num_key_value_heads") == values.get("num_attention_heads"):
        small["num_key_value_heads"] = small.get("num_attention_heads", 4)
    small |= _by_layer(values, values.get("num_hidden_layers"))
    pairs = [name for name in ("image_size", "patch_size") if isinstance(values.get(name), list)]
    small |= {name: [SMALL[name]] * 2 for name in pairs}
    small |= _multimodal_rope(text, values)
    return type(text).from_dict({**values, **small, "num_hidden_layers": LAYERS})


def _by_layer(values: dict[str, Any], layers: Any) -> dict[str, Any]:
    """Lists with one entry a layer, and tables of exceptions, cut to the first layers."""
    lists = {name: found for name, found in values.items() if isinstance(found, list)}
    cut = {name: _varied(found) for name, found in lists.items() if len(found) == layers}
    sizes = {name: [SMALL[name]] * LAYERS for name in lists.keys() & SMALL.keys()}
    exceptions = values.get("per_layer_config") or {}
    kept = {layer: found for layer, found in exceptions.items() if int(layer) < LAYERS}
    return cut | sizes | ({"per_layer_config": kept} if exceptions else {})


def _varied(by_layer: list[Any]) -> list[Any]:
    """The first entries; where a kind would be missing, and they are few, one of each kind before them."""
    kinds = list({str(entry): entry for entry in by_layer}.values())
    missing = [kind for kind in kinds if kind not in by_layer[:LAYERS]]
    return ([*kinds, *by_layer] if missing and len(kinds) < LAYERS else by_layer)[:LAYERS]


def _multimodal_rope(text: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Positions in three parts (time, row, column) share out the frequencies between them."""
    rope = values.get("rope_parameters") or {}
    if "mrope_section" not in rope and not any(name in text.model_type for name in ("vl", "glm4v", "glm_ocr")):
        return {}
    rotated = HEAD_DIM * (rope.get("partial_rotary_factor") or values.get("partial_rotary_factor") or 1)
    third = int(rotated / 2) // 3
    return {"rope_parameters": {**rope, "mrope_section": [int(rotated / 2) - 2 * third, third, third]}}
