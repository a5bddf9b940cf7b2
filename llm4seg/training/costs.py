"""What a model costs: its trained parameters, and the time of a forward pass."""

import time

import numpy as np
import torch

from llm4seg.config import Config
from llm4seg.runtime.device import device_that_fits
from llm4seg.training.inputs import training_inputs
from llm4seg.training.run import Row
from llm4seg.training.trainer import assemble

WARM, PASSES = 3, 9  # forward passes to warm up, and to measure


def profile_model(config: Config, device: torch.device) -> Row:
    """The costs of a model: its trained parameters, and its latency, the median forward pass of one image, in ms."""
    data, _ = training_inputs(config)
    model = assemble(config, data).eval()
    device = device_that_fits(model, device)
    model.to(device)
    images = torch.zeros(1, data.channels, *data.size, device=device)
    seconds = []
    for _ in range(WARM + PASSES):
        began = time.perf_counter()
        with torch.inference_mode():
            model(images).sum().item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    trained = model.parameter_counts()["trained"]
    return {"parameters": trained, "latency": round(1000 * float(np.median(seconds[WARM:])), 3)}
