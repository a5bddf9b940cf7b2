"""Segment an array with an exported model, by onnxruntime and NumPy alone: run_onnx.py MODEL.onnx IMAGE.npy MASK.npy.

The image is (channels, rows, columns) or (channels, rows, columns, slices), with axes as the model was trained on,
and without the empty margins of its volume where `cropped` is true in model.json beside the model.
"""

import json
import sys

import numpy as np
import onnxruntime


def resized(values, size, smooth):
    """(C, *shape) to (C, *size), linear; with `smooth` after a Gaussian along axes that shrink."""
    for axis, side in enumerate(size, start=1):
        length, rows = values.shape[axis], np.arange(values.shape[axis])
        sigma = max(0, (length / side - 1) / 2) if smooth else 0
        offsets = np.arange(-int(4 * sigma + 0.5), int(4 * sigma + 0.5) + 1)
        kernel = np.zeros((length, length))
        for offset in offsets:
            column = np.clip(rows + offset, 0, length - 1)
            np.add.at(kernel, (rows, column), np.exp(-(offset**2) / (2 * sigma**2 or 1)))
        places = (np.arange(side) + 0.5) * length / side - 0.5
        matrix = np.stack([np.interp(places, rows, column) for column in (kernel / kernel.sum(1)[:, None]).T], axis=1)
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    return values


def normalized(image, about):
    if about["intensity"] == "zscore":
        axes = tuple(range(1, image.ndim))
        return (image - image.mean(axes, keepdims=True)) / np.maximum(image.std(axes, keepdims=True), 1e-12)
    unit = (0, 255) if image.dtype == np.uint8 else (image.min(), image.max())
    low, high = about["window"] if about["intensity"] == "window" else unit
    return np.clip((image - low) / max(high - low, 1e-12), 0, 1)


def segmented(session, image, about, labels, softmax):
    network_input = resized(normalized(image, about), about["size"], smooth=True).astype(np.float32)
    logits = resized(session.run(["logits"], {"images": network_input[None]})[0][0], image.shape[1:], smooth=False)
    mask = logits.argmax(0) if softmax else np.zeros(image.shape[1:])
    for channel, label in enumerate([] if softmax else labels.get("regions_class_order", [1])):
        mask[logits[channel] > 0] = label
    return mask.astype(np.uint8) * (image.min() < image.max())  # a constant image is background


session = onnxruntime.InferenceSession(sys.argv[1])
described = json.loads(session.get_modelmeta().custom_metadata_map["llm4seg.json"])
about, array = described["preprocessing"], np.load(sys.argv[2])
if about["grid"] != "resize" or about["intensity"] == "released":
    sys.exit("this script is for models with data.grid: resize; others need what `preprocessing` says")
slices = np.moveaxis(array, -1, 0) if array.ndim == len(about["size"]) + 2 else array[None]  # of a 2-D model
masks = [segmented(session, one, about, described["labels"], described["activation"] == "softmax") for one in slices]
np.save(sys.argv[3], masks[0] if len(masks) == 1 and array.ndim == len(about["size"]) + 1 else np.stack(masks, axis=-1))
