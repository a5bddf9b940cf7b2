"""All sections of params.yaml, and the checks across sections."""

from math import prod
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ValidationInfo, model_validator

from llm4seg.config.earlier import current_presets
from llm4seg.config.schema.base import SECTIONS_ALONE, Overrides, Section
from llm4seg.config.schema.data import LLM, Data
from llm4seg.config.schema.model import Model
from llm4seg.config.schema.run import (
    Cluster,
    EngineConfig,
    Evaluation,
    Paths,
    Report,
    Tracking,
)
from llm4seg.config.schema.search import Search
from llm4seg.config.schema.split import LISTED, Split
from llm4seg.config.schema.study import Study
from llm4seg.config.schema.training import OptimizerConfig, Training
from llm4seg.utils.errors import InputError

Presets = Annotated[dict[str, Overrides], BeforeValidator(current_presets)]  # by their present names


class Sections(Section):
    """All sections of params.yaml. Raises ValueError naming the dotted parameter where two sections do not agree."""

    paths: Paths
    llm: LLM
    data: Data
    split: Split
    model: Model
    optimizer: OptimizerConfig
    training: Training
    engine: EngineConfig
    cluster: Cluster
    tracking: Tracking
    search: Search
    study: Study
    evaluation: Evaluation
    report: Report
    presets: Presets

    @property
    def input_size(self) -> tuple[int, ...]:
        """The size of the network's input: of the images' grid, or of the patches of volumes.

        Raises InputError for patches that are `auto`: their size is known with the prepared data.
        """
        if self.data.grid == "resize":
            return self.data.size
        if self.training.patch.size == "auto":
            raise InputError("training.patch.size: found auto, allowed where no prepared data are read: three numbers")
        return self.training.patch.size

    @property
    def automatic(self) -> list[str]:
        """The parameters that are `auto`, and found with the prepared volumes (see `data.patch_size`)."""
        found = {
            "training.patch.size": self.data.grid == "spacing" and self.training.patch.size == "auto",
            f"model.{self.model.chosen_name}.strides": self.model.chosen.auto_strides,
        }
        return [name for name, automatic in found.items() if automatic]

    @property
    def known_size(self) -> bool:
        """Whether the config alone says what the size of the network's input is, and its strides."""
        return not self.automatic

    @property
    def _size_name(self) -> str:
        return "training.patch.size" if self.data.grid == "spacing" else "data.size"

    @model_validator(mode="after")
    def _agree(self, info: ValidationInfo) -> Self:
        if info.context == SECTIONS_ALONE:
            return self
        self._check_dims()
        self._check_batch_shares()
        if self.known_size:
            self._check_size()
        if self.engine.offload == "nvme" and self.cluster.nvme is None:
            raise ValueError("cluster.nvme: found null, allowed: a folder, since engine.offload is nvme")
        self._check_llm_name()
        self._check_local_paths()
        self._check_launcher()
        self._check_study_folds()
        self._check_class_weights()
        self._check_deep_supervision()
        self._check_patches()
        for name, axes in {
            "training.augment.flip": self.training.augment.flip,
            "evaluation.tta": self.evaluation.tta,
        }.items():
            if wrong := [axis for axis in axes if axis >= self.data.spatial_dims]:
                raise ValueError(f"{name}: found {wrong[0]}, allowed: 0 to {self.data.spatial_dims - 1}")
        return self

    def _check_patches(self) -> None:
        """Label noise is of whole cases: drawn for a patch, it would be another in each epoch."""
        if self.data.grid != "spacing":
            return
        if not isinstance(self.data.spacing, str):
            x, y, _ = self.data.spacing
            self.training.augment.check_pixels(y, x)
        noise = self.training.label_noise
        if found := [name for name, value in noise if value]:
            raise ValueError(
                f"training.label_noise.{found[0]}: found {getattr(noise, found[0])}, allowed with data.grid: spacing: 0"
            )

    def _check_class_weights(self) -> None:
        training = self.training
        if training.loss == "bce_dice" and (weights := training.class_weights) is not None:
            found = weights if isinstance(weights, str) else [*weights]
            raise ValueError(f"training.class_weights: found {found}, allowed with training.loss: bce_dice: null")

    def _check_deep_supervision(self) -> None:
        """The decoder needs a resolution between the coarsest, which is left out, and the full one."""
        if not self.training.deep_supervision or len(self.model.chosen.decoder_channels) > 2:
            return
        found = "training.deep_supervision: found true, allowed"
        if self.model.chosen.decoder_channels:
            raise ValueError(f"{found} with fewer than 4 levels (model.backbone): false")
        having = [name for name, field in self.model.sections().items() if getattr(self.model, field).decoder_channels]
        raise ValueError(
            f"{found} with model.backbone: {self.model.backbone}: false; those that have it are {', '.join(having)}"
        )

    def _check_study_folds(self) -> None:
        folds, split = self.study.folds, self.split
        if folds and split.rule == "random":
            raise ValueError(f"study.folds: found {[*folds]}, allowed with split.rule: random: []")
        if folds and max(folds) >= split.folds and split.rule not in LISTED:
            raise ValueError(f"study.folds: found {max(folds)}, allowed: 0 to {split.folds - 1}")

    def _check_llm_name(self) -> None:
        if (name := self.model.llm.source) not in self.llm.named:
            known = ", ".join(self.llm.named)
            raise ValueError(f"model.llm.source: found {name}, allowed: {known} (llm.sources has others than default)")

    def _check_local_paths(self) -> None:
        """Refuse files that dvc.lock does not list where nodes share no file system: they get no others."""
        local = {
            "training.init_from": self.training.init_from,
            "study.folds": [*self.study.folds] if self.study.repeats else [],
            "study.other_data": self.study.other_data if self.study.repeats else None,
        }
        for dotted, value in local.items():
            if value and self.cluster.data == "pull":
                raise ValueError(f"{dotted}: found {value}, allowed with cluster.data: pull: none")

    def _check_launcher(self) -> None:
        """Where Ray starts no workers, the stage's own process is all there is."""
        cluster = self.cluster
        found: dict[str, Any] = {
            "workers": cluster.most if cluster.fewest == cluster.most else [*cluster.workers],
            "address": cluster.address,
            "data": cluster.data,
        }
        for (name, value), allowed in zip(found.items(), (1, None, "shared"), strict=True):
            if cluster.launcher == "process" and value != allowed:
                shown = "null" if allowed is None else allowed
                raise ValueError(f"cluster.{name}: found {value}, allowed with cluster.launcher: process: {shown}")

    def _check_dims(self) -> None:
        dims = self.data.spatial_dims
        if dims not in self.model.chosen.spatial_dims:
            raise ValueError(
                f"model.backbone: found {self.model.backbone}, allowed: any other, since data.spatial_dims is {dims}"
            )
        if self.model.chosen.auto_strides and self.data.grid == "resize":
            raise ValueError(f"{self.automatic[0]}: found auto, allowed with data.grid: resize: null, or a list")
        for name, values in self.model.chosen.by_axis.items():
            if wrong := [value for value in values if isinstance(value, tuple) and len(value) != dims]:
                raise ValueError(
                    f"model.{self.model.chosen_name}.{name}: found {[*wrong[0]]}, allowed: numbers or lists of {dims}, "
                    f"since data.spatial_dims is {dims}"
                )

    def _check_size(self) -> None:
        """What the size of the network's input has to fit: the backbone, the block, quarter turns, the batch."""
        size, strides = self.input_size, self.model.axis_strides(self.data.spatial_dims)
        self._check_divisors(size, strides)
        if self.model.chosen.instance_normed and size == strides:
            least = strides[0] if len(set(strides)) == 1 else [*strides]
            raise ValueError(
                f"{self._size_name}: found {[*size]}, allowed: above {least} on some axis (model.backbone)"
            )
        if self.model.bottleneck != "identity":
            self._check_tokens([side // stride for side, stride in zip(size, strides, strict=True)])
        if self.training.augment.quarter_turns and len(set(size[:2])) > 1:
            raise ValueError(
                f"training.augment.quarter_turns: found true, allowed: false, as {self._size_name} "
                f"{[*size]} is not square in rows and columns"
            )
        self._check_normed_batch()

    def _check_divisors(self, size: tuple[int, ...], strides: tuple[int, ...]) -> None:
        for axis, (side, stride) in enumerate(zip(size, strides, strict=True)):
            if side % stride == 0:
                continue
            below = side // stride * stride
            nearest = f", the nearest are {f'{below} and ' if below else ''}{below + stride}"
            along = f" along axis {axis} of {[*size]}" if len(set(strides)) > 1 else ""
            raise ValueError(
                f"{self._size_name}: found {side}{along}, allowed: multiples of {stride} (model.backbone)"
                f"{nearest if self.data.grid == 'spacing' else ''}"
            )

    def _check_tokens(self, grid: list[int]) -> None:
        """Refuse at load the token grids that the block would refuse at the first batch, after all other work."""
        pool, most = self.model.llm.pool, self.model.llm.max_tokens
        if any(side % pool for side in grid):
            where = f"the grid in the bottleneck, {grid} ({self._size_name}, model.backbone)"
            raise ValueError(f"model.llm.pool: found {pool}, allowed: divisors of {where}")
        if (tokens := prod(side // pool for side in grid)) > most:
            shown = " x ".join(str(side // pool) for side in grid)
            raise ValueError(
                f"model.llm.max_tokens: found {most}, allowed: at least {tokens}, the {shown} tokens of "
                f"{self._size_name}; "
                f"or raise model.llm.pool (now {pool})"
            )

    def _check_batch_shares(self) -> None:
        """Refuse unequal shares of a fixed number of workers; in a range they are allowed: only speed changes."""
        batch_size, cluster, accumulation = self.training.batch_size, self.cluster, self.engine.accumulation
        elastic, shares = cluster.fewest < cluster.most, cluster.most * accumulation
        if batch_size < shares or (batch_size % shares and not elastic):
            raise ValueError(
                f"training.batch_size: found {batch_size}, allowed: {'at least' if elastic else 'multiples of'} "
                f"cluster.workers x engine.accumulation = {cluster.most} x {accumulation}"
            )

    def _check_normed_batch(self) -> None:
        batch_size, accumulation = self.training.batch_size, self.engine.accumulation
        strides = self.model.axis_strides(self.data.spatial_dims)
        if self.model.chosen.batch_normed and self.input_size == strides and batch_size < 2 * accumulation:
            # BatchNorm is over all workers and one micro-batch: here one value a channel, of which there is no variance
            raise ValueError(
                f"training.batch_size: found {batch_size}, allowed: at least {2 * accumulation}, since "
                f"{self._size_name} is {[*self.input_size]}, one position at the coarsest level of model.backbone; or "
                f"{self._size_name} above {strides[0]} on some axis"
            )
