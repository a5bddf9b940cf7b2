"""The types and limits of every section of params.yaml; the values are in params.yaml alone."""

from llm4seg.sections.backbones import CMUNeXt
from llm4seg.sections.base import Overrides, Section
from llm4seg.sections.data import LLM, Data, FolderData, PhantomData, Split
from llm4seg.sections.model import Adapter, Block, LoRA, Model, parse_layers
from llm4seg.sections.run import (
    Augment,
    Cluster,
    Engine,
    Evaluation,
    Optimizer,
    Paths,
    Report,
    Search,
    Training,
)

__all__ = [
    "LLM",
    "Adapter",
    "Augment",
    "Block",
    "CMUNeXt",
    "Cluster",
    "Data",
    "Engine",
    "Evaluation",
    "FolderData",
    "LoRA",
    "Model",
    "Optimizer",
    "Overrides",
    "Paths",
    "PhantomData",
    "Report",
    "Search",
    "Section",
    "Split",
    "Training",
    "parse_layers",
]
