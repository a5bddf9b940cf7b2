"""What every process of tests/group.py imports, once for all of them."""

import torch
import transformers.models.llama.modeling_llama  # noqa: F401

import llm4seg.train  # noqa: F401
from llm4seg.engines.accelerator import import_for

import_for(torch.device("cpu"))
