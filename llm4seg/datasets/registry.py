"""`open_dataset`: the dataset that `data.dataset` names."""

from pathlib import Path

from llm4seg.config.schema import Data
from llm4seg.datasets.cases import Dataset


def open_dataset(section: Data, cache: Path) -> Dataset:
    """The dataset that `data.dataset` names; downloads go to `cache`."""
    match section.dataset:
        case "brain-mri":
            from llm4seg.datasets.brain import brain_mri

            return brain_mri(section.spatial_dims, cache)
        case "lung-ct":
            from llm4seg.datasets.lung import lung_ct

            return lung_ct(section.spatial_dims, cache)
        case "phantom":
            from llm4seg.datasets.phantom import phantom

            return phantom(section.phantom, section.spatial_dims)
        case "folder":
            from llm4seg.datasets.folder import folder

            return folder(section.folder, section.spatial_dims)
