"""Copied into MONAI bundles as scripts/segment.py: the network, and an inferer from raw images to masks.

It imports nothing of llm4seg, and computes as `llm4seg.load(...).predict` does.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, sliding_window_inference
from monai.utils import convert_to_dst_type
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

ANISOTROPIC = 3.0  # times the other spacings: an axis along which nothing is interpolated
LINEAR = {2: "bilinear", 3: "trilinear"}


def load_network(file: str, device: torch.device) -> nn.Module:
    """The network of a .pt2 file. Its graph is that of evaluation, whatever mode is asked for."""
    from torch.export.passes import move_to_device_pass

    network = move_to_device_pass(torch.export.load(file), device).module()
    for name in ("train", "eval"):  # which raise
        setattr(network, name, lambda mode=True: network)
    return network


class ImageInferer(Inferer):
    """From raw images (1, C, rows, columns[, slices]) to masks (1, 1, rows, columns[, slices]) of uint8.

    `about`: the JSON file that describes the network. A 2-D network takes a volume slice by slice.
    """

    def __init__(self, about: str) -> None:
        super().__init__()
        self.about = json.loads(Path(about).read_text(encoding="utf-8"))

    def __call__(self, inputs: Any, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        if len(inputs) != 1:
            raise ValueError(f"batch: found {len(inputs)} images, allowed: 1, since each has a shape of its own")
        about, device = self.about["preprocessing"], inputs.device
        raw_CS, shape = inputs[0].cpu().numpy(), tuple(inputs.shape[2:])
        box = _crop_box(raw_CS) if about["cropped"] and len(shape) == 3 else tuple(slice(0, side) for side in shape)
        image_CS, mask_S = raw_CS[(slice(None), *box)], np.zeros(shape, np.uint8)
        if len(shape) == about["spatial_dims"]:
            spacing = np.linalg.norm(np.asarray(inputs.affine)[0][:3, :3], axis=0) if about.get("spacing") else None
            mask_S[box] = self._labels(image_CS, spacing, network, device)
        else:
            for place in range(image_CS.shape[-1]):
                if image_CS[..., place].min() < image_CS[..., place].max():  # a constant slice is background
                    part = (*box[:2], box[2].start + place)
                    mask_S[part] = self._labels(image_CS[..., place], None, network, device)
        mask: Tensor = convert_to_dst_type(mask_S[None, None], inputs, dtype=torch.uint8)[0]  # with the file's name
        return mask

    @torch.no_grad()
    def _labels(self, image_CS: np.ndarray, spacing: Any, network: nn.Module, device: torch.device) -> np.ndarray:
        about = self.about["preprocessing"]
        if spacing is None:
            read_CS = _resized(_normalized(image_CS, about["intensity"], about["window"]), about["size"], None)
            logits_NKS = network(torch.from_numpy(read_CS)[None].to(device))
        else:
            ratios = np.asarray(spacing) / about["spacing"]
            size = [max(1, round(float(side * ratio))) for side, ratio in zip(image_CS.shape[1:], ratios, strict=True)]
            on_grid_CS = _resized(image_CS, size, _across(spacing, about["spacing"]))
            read_NCS = torch.from_numpy(_normalized_volume(on_grid_CS, about["normalization"]))[None].to(device)
            logits_NKS = sliding_window_inference(read_NCS, about["size"], 1, network, 0.5, mode="gaussian")
        shape = image_CS.shape[1:]
        logits_KS = functional.interpolate(logits_NKS.float(), shape, mode=LINEAR[len(shape)], align_corners=False)[0]
        if self.about["activation"] == "softmax":
            return logits_KS.argmax(0).cpu().numpy().astype(np.uint8)
        mask_S = np.zeros(shape, np.uint8)
        for channel, label in enumerate(self.about["labels"].get("regions_class_order", [1])):
            mask_S[(logits_KS[channel] > 0).cpu().numpy()] = label
        return mask_S


def _crop_box(image_CS: np.ndarray) -> tuple[slice, ...]:
    """The smallest box with every voxel above its channel's minimum; all of a constant image."""
    inside_S = (image_CS > image_CS.min(axis=(1, 2, 3), keepdims=True)).any(0)
    if not inside_S.any():
        return tuple(slice(0, side) for side in inside_S.shape)
    hits = [np.flatnonzero(inside_S.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)


def _normalized(image_CS: np.ndarray, intensity: str, window: Sequence[float] | None) -> np.ndarray:
    image, axes = image_CS.astype(np.float64), tuple(range(1, image_CS.ndim))
    if intensity == "zscore":
        std = image.std(axes, keepdims=True)
        return ((image - image.mean(axes, keepdims=True)) / np.where(std > 0, std, 1)).astype(np.float32)
    low, high = (0, 255) if image_CS.dtype == np.uint8 else (image.min(), image.max())
    if intensity == "window":
        assert window is not None
        low, high = window
        image = image.clip(low, high)
    return ((image - low) / max(high - low, 1e-12)).astype(np.float32)


def _normalized_volume(image_CS: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    image = image_CS.astype(np.float32)
    for channel, values in enumerate(image):
        if about["kind"] != "ct":
            image[channel] = _normalized(image_CS[channel : channel + 1], about["kind"], about["window"])[0]
            continue
        known = about["foreground"][channel]
        image[channel] = (values.clip(known["low"], known["high"]) - known["mean"]) / max(known["std"], 1e-8)
    return image


def _across(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    for each in (spacing, target):
        coarse = int(np.argmax(each))
        if each[coarse] > ANISOTROPIC * max(np.delete(each, coarse)):
            return coarse
    return None


def _resized(image_CS: np.ndarray, size: Sequence[int], across: int | None) -> np.ndarray:
    """(C, *shape) to (C, *size), linear, smoothed along axes that shrink; the nearest slice along the axis `across`.

    Integers stay integers, rounded.
    """
    shape = np.array(image_CS.shape[1:])
    sigma, factors = np.maximum(0, (shape / size - 1) / 2), np.array(size) / shape
    if across is not None:
        sigma[across], factors[across] = 0, 1
    channels = []
    for values in image_CS.astype(np.float32):
        smooth = ndimage.gaussian_filter(values, sigma, mode="nearest")
        channels.append(ndimage.zoom(smooth, factors, order=1, mode="nearest", grid_mode=True))
    result = np.stack(channels)
    if across is not None:
        places = (np.arange(size[across]) + 0.5) * shape[across] / size[across] - 0.5
        nearest = np.rint(places).astype(int).clip(0, shape[across] - 1)
        result = result.take(nearest, axis=1 + across)
    return np.rint(result).astype(image_CS.dtype) if image_CS.dtype.kind in "iu" else result
