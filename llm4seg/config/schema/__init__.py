"""Types and limits of every section of params.yaml; the values are in params.yaml alone."""

from llm4seg.config.schema.base import SECTIONS_ALONE, Overrides, Section
from llm4seg.config.schema.data import LLM, Data, PhantomData
from llm4seg.config.schema.folder import FolderData
from llm4seg.config.schema.model import Adapter, Block, LoRA, Model, parse_layers
from llm4seg.config.schema.run import (
    POSTPROCESS,
    Analysis,
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
    "POSTPROCESS",
    "PRESET",
    "Adapter",
    "Analysis",
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
