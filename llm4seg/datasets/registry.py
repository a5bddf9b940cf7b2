"""`open_dataset`: the dataset that `data.dataset` names."""

from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.classes import with_classes

PACKAGED = ("brain-mri", "lung-ct", "phantom")  # these read nothing in data.root


def open_dataset(section: Data, cache: Path) -> Dataset:
    """The dataset that `data.dataset` names; downloads go to `cache`."""
    chosen = section.classes, section.regions_class_order
    match section.dataset:
        case "brain-mri":
            from llm4seg.datasets.brain import brain_mri

            return with_classes(brain_mri(section.spatial_dims, cache), *chosen)
        case "lung-ct":
            from llm4seg.datasets.lung import lung_ct

            return with_classes(lung_ct(section.spatial_dims, cache), *chosen)
        case "phantom":
            from llm4seg.datasets.phantom import phantom

            return with_classes(phantom(section.phantom, section.spatial_dims), *chosen)
        case "folder":
            from llm4seg.datasets.folder import folder

            return folder(section)
        case "busi":
            from llm4seg.datasets.busi import busi

            return busi(section, cache)
        case "kvasir-seg":
            from llm4seg.datasets.polyps import kvasir_seg

            return with_classes(kvasir_seg(section, cache), *chosen)
        case "cvc-clinicdb":
            from llm4seg.datasets.polyps import cvc_clinicdb

            return with_classes(cvc_clinicdb(section, cache), *chosen)
        case "isic":
            from llm4seg.datasets.isic import isic

            return with_classes(isic(section, cache), *chosen)
        case "tnscui":
            from llm4seg.datasets.thyroid import tnscui

            return tnscui(section, cache)
        case "tn3k":
            from llm4seg.datasets.thyroid import tn3k

            return tn3k(section, cache)
        case "decathlon":
            from llm4seg.datasets.decathlon import decathlon

            return with_classes(decathlon(section, cache), *chosen)
        case "btcv":
            from llm4seg.datasets.btcv import btcv

            return with_classes(btcv(section, cache), *chosen)
        case "nnunet":
            from llm4seg.datasets.nnunet import nnunet

            return with_classes(nnunet(section, cache), *chosen)
        case "acdc":
            from llm4seg.datasets.acdc import acdc

            return with_classes(acdc(section, cache), *chosen)
