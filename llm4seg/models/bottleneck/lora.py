"""LoRA on LLM layers (Hu et al., arXiv 2106.09685), by peft: trained low-rank changes of frozen matrices."""

from torch import nn

from llm4seg.config.schema import LoRA
from llm4seg.utils.errors import InputError


def add_lora(layers: nn.ModuleList, section: LoRA) -> None:
    """Add LoRA to every linear layer in frozen `layers`, in place; initially it changes nothing.

    Its weights come from torch's generator. Raises InputError for other matrices, such as the experts of a mixture,
    which would stay untrained.
    """
    from peft import LoraConfig, inject_adapter_in_model  # here: the import takes seconds

    names = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    for name, parameter in layers.named_parameters():
        if parameter.ndim > 1 and name.rpartition(".")[0] not in names:
            raise InputError(f"model.llm.training: found lora, allowed: frozen or full, since {name} is no linear map")
    config = LoraConfig(r=section.rank, lora_alpha=section.alpha, lora_dropout=0.0, target_modules=names)
    inject_adapter_in_model(config, layers)
