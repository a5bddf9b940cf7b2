"""What torch's documentation says about gradients on a GPU: the layers that have no deterministic one.

The list is that of `torch.use_deterministic_algorithms`, as far as layers of networks can be on it.
"""

from torch import nn

from llm4seg.utils.errors import InputError

POOLS_TO_A_SIZE = nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d  # to 1 pixel they are a mean, which has one
LAYERS = (
    nn.AvgPool3d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.ReflectionPad1d,
    nn.ReflectionPad2d,
    nn.ReflectionPad3d,
)
UPSAMPLING = "linear", "bicubic"  # bilinear and trilinear torch takes apart into operations that have one


def check_deterministic(model: nn.Module) -> None:
    """Raise InputError naming the first layer of a model that torch would refuse in a training on a GPU."""
    for name, module in model.named_modules():
        if _refused(module):
            raise InputError(
                f"engine.deterministic: found true, allowed on a GPU for this model: false, since torch has no "
                f"deterministic gradient of {name}, a {type(module).__name__}; or choose another model.backbone"
            )


def _refused(module: nn.Module) -> bool:
    if isinstance(module, POOLS_TO_A_SIZE):
        size = module.output_size
        return not (set(size) if isinstance(size, tuple) else {size}) <= {1}
    if isinstance(module, nn.Upsample):
        return module.mode in UPSAMPLING
    return isinstance(module, LAYERS) or getattr(module, "padding_mode", "zeros") == "reflect"
