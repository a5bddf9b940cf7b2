"""`Hybrid`: a CNN encoder-decoder with a module in its bottleneck."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from llm4seg.models.bottleneck.quantized import quantized_entries
from llm4seg.utils.errors import InputError

BOTTLENECK = "bottleneck."
SUPERVISED = "decoder.supervised."  # heads for deep supervision, of which only training makes use
LLM = "bottleneck.core."  # the prefix of the LLM layers, if there are any


class Hybrid(nn.Module):
    """Encoder, bottleneck, decoder. With `nn.Identity()` in the bottleneck it is the CNN alone.

    The bottleneck maps the coarsest feature map to one of equal shape, which replaces it.
    """

    def __init__(self, encoder: nn.Module, bottleneck: nn.Module, decoder: nn.Module, strides: Sequence[int]) -> None:
        super().__init__()
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.strides = tuple(strides)  # of the coarsest feature map, along each axis
        self.mixed_precision = False  # compute in this dtype where that is safe; the weights stay in float32
        self.autocast_dtype = torch.bfloat16

    def forward(self, images_NCS: Tensor) -> Tensor | list[Tensor]:
        """Logits (N, K, *size) of images (N, C, *size); in training with deep supervision those of several levels, the
        full resolution first. Raises InputError unless the strides divide the sides.
        """
        size = tuple(images_NCS.shape[2:])
        if any(side % stride for side, stride in zip(size, self.strides, strict=True)):
            every = f"{self.strides[0]} on every side" if len(set(self.strides)) == 1 else f"{[*self.strides]}"
            raise InputError(f"image size: found {list(size)}, allowed: multiples of {every} (model.backbone)")
        with torch.autocast(images_NCS.device.type, self.autocast_dtype, enabled=self.mixed_precision):
            *skips, coarsest = self.encoder(images_NCS)
            logits: Tensor | list[Tensor] = self.decoder([*skips, self.bottleneck(coarsest)])
        return logits

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """The state dict without frozen parameters of LLM layers: the content of a weights file.

        Frozen parameters are restored from the layer store and the seed.
        """
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: t for name, t in self.state_dict().items() if name in trained or not name.startswith(LLM)}

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Load a `trainable_state_dict`. Raises InputError naming a tensor that is missing, unexpected or misshapen."""
        wanted = self.trainable_state_dict()
        for name in sorted(wanted.keys() | state.keys()):
            if name not in state:
                raise InputError(f"model weights: {name} is missing; were they trained with another `model` section?")
            if name not in wanted:
                raise InputError(
                    f"model weights: {name} is unexpected; were they trained with another `model` section?"
                )
            if (found := state[name].shape) != wanted[name].shape:
                raise InputError(f"model weights: {name}: found shape {[*found]}, allowed: {[*wanted[name].shape]}")
        self.load_state_dict(dict(state), strict=False)

    def load_cnn(self, state: Mapping[str, Tensor]) -> None:
        """Load encoder and decoder from another model's `trainable_state_dict`; the bottleneck keeps its weights."""
        kept = {name: tensor for name, tensor in self.trainable_state_dict().items() if name.startswith(BOTTLENECK)}
        cnn = {name: tensor for name, tensor in state.items() if not name.startswith(BOTTLENECK)}
        self.load_weights(cnn | kept)

    def parameter_counts(self) -> dict[str, int]:
        """The numbers of `trained` and `frozen` parameters (see the function of this name)."""
        return parameter_counts(self)


def parameter_counts(module: nn.Module) -> dict[str, int]:
    """The numbers of `trained` and of `frozen` parameters, entries held as integers among the latter."""
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    frozen = sum(parameter.numel() for parameter in module.parameters()) - trained
    return {"trained": trained, "frozen": frozen + quantized_entries(module)}
