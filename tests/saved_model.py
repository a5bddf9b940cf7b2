"""A model folder without training: random weights of which a head is amplified, so that all classes are predicted."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from llm4seg.config import Config
from llm4seg.models.saved import save_trained
from llm4seg.training.inputs import training_inputs
from llm4seg.training.trainer import assemble


def save_random_model(config: Config, seed: int = 0) -> Path:
    """Write paths.model for the prepared data of a config."""
    data, split = training_inputs(config)
    model = assemble(config, data)
    torch.manual_seed(seed)
    model.train()
    if data.spacing is None:  # statistics of BatchNorm, without which all activations are alike
        images = [data.resampled(case_id)[0] for case_id in split.train[:8]]
    else:
        images = [data.patch(case_id, [0] * data.spatial_dims)[0] for case_id in split.train[:8]]
    with torch.no_grad():
        for _ in range(30):
            model(torch.stack(images))
        head = [module for module in model.decoder.modules() if getattr(module, "bias", None) is not None][-1]
        head.weight *= 20
        logits_NKS = model.eval()(torch.stack(images))
        head.bias -= logits_NKS.transpose(0, 1).flatten(1).median(dim=1).values
    weights = config.paths.model.with_suffix(".safetensors")
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.trainable_state_dict(), weights)
    save_trained(config.paths.model, weights, config, data, "torch")
    return config.paths.model
