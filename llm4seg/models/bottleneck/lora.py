"""LoRA on LLM layers (Hu et al., arXiv 2106.09685), by peft: the pre-trained matrices stay, low-rank changes learn."""

from torch import nn

from llm4seg.sections import LoRA


def add_lora(layers: nn.ModuleList, section: LoRA) -> None:
    """Put LoRA on every linear map of frozen `layers`, in place; it begins as no change.

    Draws from torch's generator.
    """
    from peft import LoraConfig, inject_adapter_in_model  # here: the import takes seconds

    names = [name for name, module in layers.named_modules() if isinstance(module, nn.Linear)]
    config = LoraConfig(r=section.rank, lora_alpha=section.alpha, lora_dropout=0.0, target_modules=names)
    inject_adapter_in_model(config, layers)
