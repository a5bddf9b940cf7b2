"""The imports of every process of tests/worker_group.py, made once for all of them."""

import torch
import transformers.models.llama.modeling_llama  # noqa: F401

import llm4seg.training.trainer  # noqa: F401
from llm4seg.training.engines.accelerator import import_for

import_for(torch.device("cpu"))
