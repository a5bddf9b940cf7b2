"""Which dataset: the one `match` over data.dataset."""

from pathlib import Path

from llm4seg.data.cases import Dataset
from llm4seg.sections import Data


def open_dataset(section: Data, cache: Path) -> Dataset:
    """The dataset that `data.dataset` names; downloads go to `cache`."""
    match section.dataset:
        case "brain-mri":
            from llm4seg.data.brain import brain_mri

            return brain_mri(section.spatial_dims, cache)
        case "lung-ct":
            from llm4seg.data.lung import lung_ct

            return lung_ct(section.spatial_dims, cache)
        case "phantom":
            from llm4seg.data.phantom import phantom

            return phantom(section.phantom, section.spatial_dims)
        case "folder":
            from llm4seg.data.folder import folder

            return folder(section.folder, section.spatial_dims)
