"""The LLM block: feature map to tokens, adapter, LLM layers, adapter, and back to a feature map."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from llm4seg.config.schema import Block
from llm4seg.models.bottleneck.adapters import Gate
from llm4seg.models.upsampling import MODES, upsample_by_two
from llm4seg.utils.errors import InputError

POOLING = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class TokenBlock(nn.Module):
    """A feature map's positions as tokens in raster order, through `core` between two adapters.

    Any grid that `model.llm.pool` divides, up to `model.llm.max_tokens` tokens; other grids raise InputError.
    """

    def __init__(self, section: Block, channels: int, adapter_in: nn.Module, core: nn.Module, adapter_out: nn.Module):
        super().__init__()
        self._section = section
        self.adapter_in = adapter_in
        self.core = core
        self.adapter_out = adapter_out
        self.gate = Gate(channels) if section.residual == "gate" else nn.Identity()

    def forward(self, features_NCS: Tensor) -> Tensor:
        """A feature map of equal shape, which replaces the input."""
        if self._section.train_only and not self.training:
            return features_NCS
        changed_NCS = self._resized(self._changed(self._pooled(features_NCS)), features_NCS.shape[2:])
        return changed_NCS if self._section.residual == "none" else features_NCS + self.gate(changed_NCS)

    def _changed(self, features_NCS: Tensor) -> Tensor:
        grid = features_NCS.shape[2:]
        if grid.numel() > self._section.max_tokens:
            raise InputError(
                f"model.llm.max_tokens: found a grid of {' x '.join(map(str, grid))} = {grid.numel()} tokens, allowed: "
                f"{self._section.max_tokens}; raise it, or model.llm.pool (now {self._section.pool})"
            )
        tokens_NTC = features_NCS.flatten(2).transpose(1, 2)
        tokens_NTC = self.adapter_out(self.core(self.adapter_in(tokens_NTC), grid))
        return tokens_NTC.transpose(1, 2).unflatten(2, grid)

    def _pooled(self, features_NCS: Tensor) -> Tensor:
        pool, grid = self._section.pool, features_NCS.shape[2:]
        if pool == 1:
            return features_NCS
        if any(side % pool for side in grid):
            raise InputError(f"model.llm.pool: found {pool}, which does not divide the feature map's grid {[*grid]}")
        if len(grid) == 3 and not features_NCS.is_cpu:
            return mean_of_cubes(features_NCS, pool)
        return POOLING[len(grid)](features_NCS, pool)

    def _resized(self, features_NCS: Tensor, grid: Sequence[int]) -> Tensor:
        if features_NCS.shape[2:] == grid:
            return features_NCS
        if self._section.pool == 2:
            return upsample_by_two(features_NCS)
        mode = MODES[features_NCS.ndim]
        return functional.interpolate(features_NCS, tuple(grid), mode=mode, align_corners=False)


def mean_of_cubes(features_NCDHW: Tensor, side: int) -> Tensor:
    """torch's `avg_pool3d`, whose gradient on CUDA adds up in any order, without that: no cube overlaps another."""
    cubes = features_NCDHW
    for axis in (2, 4, 6):
        cubes = cubes.unflatten(axis, (-1, side))
    return cubes.mean((3, 5, 7))


class Activation(nn.Module):
    """The core of the MLP control: an activation instead of the LLM layers."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.activation = activation()

    def forward(self, tokens_NTE: Tensor, grid: Sequence[int]) -> Tensor:
        out: Tensor = self.activation(tokens_NTE)
        return out
