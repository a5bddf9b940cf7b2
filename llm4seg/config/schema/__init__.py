"""Types and limits of every section of params.yaml; the values are in params.yaml alone."""

from llm4seg.config.schema.base import DEFAULT_LLM, SECTIONS_ALONE, Overrides, Section
from llm4seg.config.schema.data import LLM, Data, LLMSource, PhantomData
from llm4seg.config.schema.folder import FolderData
from llm4seg.config.schema.model import Adapter, Block, LoRA, Model, parse_layers
from llm4seg.config.schema.run import (
    POSTPROCESS,
    Cluster,
    EngineConfig,
    Evaluation,
    Paths,
    Report,
    Tracking,
)
from llm4seg.config.schema.search import Choice, Conditional, LogUniform, RandInt, Search, Uniform, points
from llm4seg.config.schema.sections import Presets, Sections
from llm4seg.config.schema.split import Split
from llm4seg.config.schema.study import PRESET, Plan, Spread, Study
from llm4seg.config.schema.training import Augment, LabelNoise, OptimizerConfig, Patch, Training

__all__ = [
    "DEFAULT_LLM",
    "POSTPROCESS",
    "PRESET",
    "Adapter",
    "Augment",
    "Block",
    "Choice",
    "Cluster",
    "Conditional",
    "Data",
    "EngineConfig",
    "Evaluation",
    "FolderData",
    "LLM",
    "LLMSource",
    "LabelNoise",
    "LoRA",
    "LogUniform",
    "Model",
    "OptimizerConfig",
    "Overrides",
    "Patch",
    "Paths",
    "PhantomData",
    "Plan",
    "Presets",
    "RandInt",
    "Report",
    "SECTIONS_ALONE",
    "Search",
    "Section",
    "Sections",
    "Split",
    "Spread",
    "Study",
    "Tracking",
    "Training",
    "Uniform",
    "parse_layers",
    "points",
]
