"""What every process of tests/group.py imports, once for all of them."""

import transformers.models.llama.modeling_llama  # noqa: F401

import llm4seg.train  # noqa: F401
from llm4seg.engines.deepspeed import _import

_import()
