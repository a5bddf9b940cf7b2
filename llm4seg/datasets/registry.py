"""`open_dataset`: the dataset that `data.dataset` names."""

from collections.abc import Callable
from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.datasets.acdc import acdc
from llm4seg.datasets.archives import root_folder
from llm4seg.datasets.brain import brain_mri
from llm4seg.datasets.btcv import btcv
from llm4seg.datasets.busi import busi
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.classes import with_classes
from llm4seg.datasets.decathlon import decathlon
from llm4seg.datasets.folder import folder
from llm4seg.datasets.isic import isic
from llm4seg.datasets.lung import lung_ct
from llm4seg.datasets.nnunet import nnunet
from llm4seg.datasets.phantom import phantom
from llm4seg.datasets.polyps import cvc_clinicdb, kvasir_seg
from llm4seg.datasets.thyroid import tn3k, tnscui

PACKAGED = ("brain-mri", "lung-ct", "phantom")  # these read nothing in data.root
Reader = Callable[[Data, Path], Dataset]  # of the section `data` and the folder for downloads

# by data.dataset: readers to which data.classes is applied here, and those that apply it themselves
READERS: dict[str, Reader] = {
    "brain-mri": lambda section, cache: brain_mri(section.spatial_dims, cache),
    "lung-ct": lambda section, cache: lung_ct(section.spatial_dims, cache),
    "phantom": lambda section, cache: phantom(section.phantom, section.spatial_dims),
    "kvasir-seg": kvasir_seg,
    "cvc-clinicdb": cvc_clinicdb,
    "isic": isic,
    "decathlon": decathlon,
    "btcv": btcv,
    "nnunet": nnunet,
    "acdc": acdc,
}
READERS_OF_CLASSES: dict[str, Reader] = {
    "folder": lambda section, cache: folder(section.model_copy(update={"root": root_folder(section.root, cache)})),
    "busi": busi,
    "tnscui": tnscui,
    "tn3k": tn3k,
}


def open_dataset(section: Data, cache: Path) -> Dataset:
    """The dataset that `data.dataset` names; downloads go to `cache`."""
    name = section.dataset
    if name in READERS_OF_CLASSES:
        return READERS_OF_CLASSES[name](section, cache)
    return with_classes(READERS[name](section, cache), section.classes, section.regions_class_order)
