"""The types and limits of every section of params.yaml; the values are in params.yaml alone."""

from llm4seg.sections.backbones import (
    INSTANCE_NORMED,
    SMP,
    UNETR,
    AttentionUNet,
    BackboneName,
    CMUNeXt,
    DynUNet,
    SegResNet,
    SwinUNETR,
    UNet,
    UNetPlusPlus,
)
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
    "INSTANCE_NORMED",
    "LLM",
    "SMP",
    "UNETR",
    "Adapter",
    "AttentionUNet",
    "Augment",
    "BackboneName",
    "Block",
    "CMUNeXt",
    "Cluster",
    "Data",
    "DynUNet",
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
    "SegResNet",
    "Split",
    "SwinUNETR",
    "Training",
    "UNet",
    "UNetPlusPlus",
    "parse_layers",
]
