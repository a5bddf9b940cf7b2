"""A screen of LLM layers without training: each one behind a trained CNN's encoder, between untrained adapters.

The adapter before a layer is drawn as a training draws it, once for each of SEEDS seeds, over which a layer's measures
are averaged. The adapter behind it is fitted in closed form to give back the CNN's own features. No weight is trained.

`probe`: balanced accuracy on the validation part of linear probes on the layer's output, fitted on the training part,
mean over the classes and their union. `cka`: of the layer's output with the decoder's input. `coherence`: the mean
cosine between the gradients that images of the training part have in the loss, of a linear map of the channels just
before the block; after Bai et al., "Frozen Language Models Are Gradient Coherence Rectifiers in Vision Transformers"
(AAAI 2025), which relates gains to it and to the similarity; only its abstract was at hand, so the formula is ours.
`recovery`: R^2 on the validation part of the fitted adapter behind the layer. More is supposed to be better in each;
RELIABLE has those of which that was shown.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from llm4seg.analysis.coherence import coherence
from llm4seg.analysis.maps import POOLING, token_mask
from llm4seg.analysis.probe import FOLDS, Moments, balanced_accuracy, deal_folds, fit_probe
from llm4seg.analysis.similarity import cka
from llm4seg.analysis.stitching import explained_variance, stitch
from llm4seg.config.schema import Model, Training
from llm4seg.data.batches import load_batch
from llm4seg.data.label_scheme import IGNORE, foreground
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split
from llm4seg.llm.store import LayerStore
from llm4seg.models import Hybrid
from llm4seg.models.bottleneck import TokenBlock, build_bottleneck
from llm4seg.objectives.losses import Loss, build_loss
from llm4seg.training.class_weights import balanced, count_labels
from llm4seg.utils.errors import InputError

MEASURES = ("probe", "cka", "coherence", "recovery")
# the measures whose Kendall's tau with full trainings lies above 0 with its whole interval (docs/search.md): a search
# goes by these alone
RELIABLE: tuple[str, ...] = ()
CNN = "cnn"  # in the column `layer`: the CNN alone
SEEDS = 3  # draws of the adapter before a layer
CASES, GRADIENTS, BATCH = 128, 32, 16  # of each part, evenly spread; of these for gradients; at a time
ANY = "any"  # the union of all classes

Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Cases of a part of the split: the CNN's features (N, C, *grid), and masks (N, T) on the token grid by class."""

    case_ids: tuple[str, ...]
    features: Tensor
    masks: dict[str, Tensor]


class Screen:
    """Measures of layers, of one CNN on one data set.

    `section`: its `llm` has the block's options; a residual and `train_only` are left out, since the layer itself is
    asked about. Raises InputError for a model with a block, for volumes in patches, and where no class can be probed.
    """

    def __init__(self, model: Hybrid, data: Prepared, split: Split, section: Model, loss: Loss) -> None:
        if not isinstance(model.bottleneck, nn.Identity):
            raise InputError("model.bottleneck: found a block in the trained model, allowed for a screen: identity")
        if data.spacing is not None:
            raise InputError("data.grid: found spacing, allowed for a screen: resize")
        self._model, self._data, self._loss = model.requires_grad_(False).eval(), data, loss
        self._device = next(model.parameters()).device
        block = section.llm.model_copy(update={"residual": "none", "train_only": False, "checkpointing": False})
        self._section = section.model_copy(update={"bottleneck": "llm", "llm": block})
        self._train, self._val = (self._part(spread(case_ids, CASES)) for case_ids in (split.train, split.val))
        self._folds = _folds(data, self._train.case_ids)
        self._targets = [name for name in self._train.masks if self._can_be_probed(name)]
        if not self._targets:
            raise InputError(
                f"{data.folder}: found no class that fills half of a token in several cases of training and in one of "
                f"validation, on a grid of {[*self._grid]} tokens; allowed for a screen: larger images"
            )

    @property
    def targets(self) -> list[str]:
        """The classes that are probed: those with tokens inside and outside in both parts, and `any` for all."""
        return self._targets

    def cnn(self) -> Row:
        """The row of the CNN alone: of the features that enter the block, and leave it, unchanged."""
        pooled = (POOLING[len(self._grid)](part.features, self._grid) for part in self._parts)
        values = {
            "probe": self._probe(*(one.flatten(2).transpose(1, 2) for one in pooled)),
            "cka": 1.0,
            "recovery": 1.0,
        }
        return {"layer": CNN, **values, "coherence": coherence(self._gradients(nn.Identity()))}

    def layer(self, store: LayerStore, layer: int) -> Row:
        """The row of a layer: each measure's mean over seeds, its standard deviation (_sd), and its _seconds."""
        drawn: dict[str, list[float]] = {name: [] for name in MEASURES}
        seconds = dict.fromkeys(MEASURES, 0.0)
        for seed in range(SEEDS):
            block, began = self._block(store, layer, seed), time.perf_counter()
            for name, value in self._measure(block):
                drawn[name].append(value)
                seconds[name] += time.perf_counter() - began
                began = time.perf_counter()
        row: Row = {"layer": layer}
        for name, values in drawn.items():
            row |= {name: float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}
            row[f"{name}_seconds"] = round(seconds[name], 3)
        return row

    def _measure(self, block: TokenBlock) -> Iterator[tuple[str, float]]:
        """Each measure, in the order in which one needs what another computed: the first pays for the forward pass."""
        (train_NTC, train_NTE), (val_NTC, val_NTE) = (_tokens(block, part.features) for part in self._parts)
        yield "cka", cka(train_NTE.flatten(0, 1), train_NTC.flatten(0, 1))
        yield "probe", self._probe(train_NTE, val_NTE)
        block.adapter_out = stitch(train_NTE.flatten(0, 1), train_NTC.flatten(0, 1))
        with torch.no_grad():
            yield "recovery", explained_variance(block.adapter_out(val_NTE).flatten(0, 1), val_NTC.flatten(0, 1))
        yield "coherence", coherence(self._gradients(block))

    @property
    def _parts(self) -> tuple[Part, Part]:
        return self._train, self._val

    @property
    def _grid(self) -> tuple[int, ...]:
        return tuple(side // self._section.llm.pool for side in self._train.features.shape[2:])

    def _part(self, case_ids: Sequence[str]) -> Part:
        features, masks = [], []
        for first in range(0, len(case_ids), BATCH):
            images_NCS, labels_NS = load_batch(self._data, case_ids[first : first + BATCH], self._device)
            with torch.no_grad():
                features.append(self._model.encoder(images_NCS)[-1])
            grid = [side // self._section.llm.pool for side in features[-1].shape[2:]]
            masks += [self._token_masks(labels_S, grid) for labels_S in labels_NS.cpu()]
        by_class = {name: torch.stack([one[name] for one in masks]) for name in masks[0]}
        return Part(tuple(case_ids), torch.cat(features), by_class)

    def _token_masks(self, labels_S: Tensor, grid: Sequence[int]) -> dict[str, Tensor]:
        masks = dict(zip(self._data.scheme.classes, self._data.scheme.masks(labels_S), strict=True))
        masks[ANY] = foreground(labels_S)
        return {name: token_mask(mask, grid).reshape(-1) for name, mask in masks.items()}

    def _can_be_probed(self, name: str) -> bool:
        counts = Moments(0)
        for mask_T, fold in zip(self._train.masks[name], self._folds, strict=True):
            counts.add(torch.zeros(len(mask_T), 0), mask_T, fold)
        validated = self._val.masks[name]
        return bool(counts.testable_folds()) and bool(validated.any()) and not bool(validated.all())

    def _probe(self, train_NTE: Tensor, val_NTE: Tensor) -> float:
        scores = []
        for name in self._targets:
            moments = Moments(train_NTE.shape[-1])
            for tokens_TE, mask_T, fold in zip(train_NTE, self._train.masks[name], self._folds, strict=True):
                moments.add(tokens_TE, mask_T, fold)
            probe = fit_probe(moments)
            scores.append(balanced_accuracy(probe(val_NTE.flatten(0, 1)), self._val.masks[name]))
        return float(np.mean(scores))

    def _block(self, store: LayerStore, layer: int, seed: int) -> TokenBlock:
        """The block of a layer as it begins a training: its adapters are drawn from a seed."""
        llm = self._section.llm.model_copy(update={"layer": (layer,)})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            section = self._section.model_copy(update={"llm": llm})
            block = build_bottleneck(section, store, self._train.features.shape[1], seed)
        assert isinstance(block, TokenBlock)
        return block.requires_grad_(False).to(self._device).eval()

    def _gradients(self, block: nn.Module) -> Iterator[Tensor]:
        """Each image's gradient of its loss in a linear map of the channels before the block, at identity: (C, C)."""
        case_ids = spread(self._train.case_ids, GRADIENTS)
        for first in range(0, len(case_ids), BATCH):
            images_NCS, labels_NS = load_batch(self._data, case_ids[first : first + BATCH], self._device)
            with torch.no_grad():
                *skips, coarsest_NCG = self._model.encoder(images_NCS)
            coarsest_NCG.requires_grad_()
            logits_NKS = self._model.decoder([*skips, block(coarsest_NCG)])
            # in evaluation mode no image depends on another, so that the gradient of the sum has each image's
            each = [self._loss(logits_NKS[n : n + 1], labels_NS[n : n + 1]) for n in range(len(labels_NS))]
            (gradient_NCG,) = torch.autograd.grad(torch.stack(each).sum(), coarsest_NCG)
            yield from gradient_NCG.flatten(2) @ coarsest_NCG.detach().flatten(2).transpose(1, 2)


def screen_loss(section: Training, data: Prepared, case_ids: Sequence[str], device: torch.device) -> Loss:
    """The loss of a trained CNN's `training` section; `case_ids`: the training part, by which `auto` weighs classes."""
    weights: Tensor | None = None
    if section.class_weights == "auto":
        counts = sum((count_labels(data.resampled(case_id)[1]) for case_id in case_ids), torch.zeros(IGNORE + 1))
        weights = balanced(counts[: len(data.classes) + 1]).to(device)
    elif section.class_weights is not None:
        weights = torch.tensor(section.class_weights, device=device)
    return build_loss(section.loss, data.scheme, section, weights)


def spread(case_ids: Sequence[str], most: int) -> tuple[str, ...]:
    """At most so many of some cases, evenly spread in their order."""
    count = min(most, len(case_ids))
    return tuple(case_ids[number * len(case_ids) // count] for number in range(count))


def _folds(data: Prepared, case_ids: Sequence[str]) -> list[int]:
    """The fold of each case: whole groups, or where there is one group, runs of neighboring cases."""
    groups = [data.cases[case_id].group for case_id in case_ids]
    if len(set(groups)) == 1:
        return [number * FOLDS // len(case_ids) for number in range(len(case_ids))]
    fold_of = deal_folds(groups)
    return [fold_of[group] for group in groups]


@torch.no_grad()
def _tokens(block: TokenBlock, features_NCG: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the adapter before the layer, (N, T, C), and what leaves the layer, (N, T, E)."""
    entering, leaving = list[Tensor](), list[Tensor]()
    hooks = [
        block.adapter_in.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0])),
        block.core.register_forward_hook(lambda _, inputs, output: leaving.append(output)),
    ]
    for features in features_NCG.split(BATCH):
        block(features)
    for hook in hooks:
        hook.remove()
    return torch.cat(entering), torch.cat(leaving)


def ranking(table: pd.DataFrame, measures: Sequence[str]) -> list[int]:
    """The layers of a screen's table, best first by the mean of their ranks in some measures; equal ones in order."""
    layers = table[table["layer"].astype(str) != CNN]
    ranks = layers[list(measures)].rank(ascending=False).mean(axis=1)
    return [int(layer) for layer in layers.assign(rank=ranks).sort_values("rank", kind="stable")["layer"]]
