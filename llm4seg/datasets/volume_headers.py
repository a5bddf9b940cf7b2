"""Whether volumes fit into memory at `data.spacing`, by the headers of their files: before any voxel is read."""

from collections.abc import Iterator
from dataclasses import dataclass

from llm4seg.config.schema import Data
from llm4seg.datasets.cases import Dataset
from llm4seg.datasets.geometry import geometry
from llm4seg.datasets.image_io import read_header
from llm4seg.datasets.spacing import in_array_order, target_spacing
from llm4seg.datasets.volume_grid import check_memory
from llm4seg.utils.errors import InputError


@dataclass(frozen=True)
class VolumeHeader:
    """A volume by its file's header: voxels along rows, columns and slices, and their spacing in mm."""

    source: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]


def check_volumes(dataset: Dataset, section: Data) -> None:
    """Raise InputError naming the first volume that is larger at `data.spacing` than what memory is free.

    Volumes whose header cannot be read alone are left out (see `read_header`). Where the spacing is `auto`, it is that
    of uncropped volumes: `prepare` may find a coarser one for coarse slices.
    """
    if section.grid != "spacing":
        return
    headers = list(volume_headers(dataset))
    if not headers:
        return
    spacing, found = section.spacing, ""
    if isinstance(spacing, str):
        target = target_spacing([one.spacing for one in headers], [one.shape for one in headers])
        found = "auto, "
    else:
        target = in_array_order(spacing)
    for header in headers:
        try:
            check_memory(header, target)
        except InputError as error:
            raise InputError(str(error).replace("found ", f"found {found}", 1)) from None


def volume_headers(dataset: Dataset) -> Iterator[VolumeHeader]:
    """The headers of a dataset's volumes in mm, as far as they can be read."""
    for path in dataset.files:
        image = read_header(path)
        if image is None or image.flat or image.unit != "mm":
            continue
        way = geometry(image, "axial")
        yield VolumeHeader(path.name, tuple(way.shape[axis] for axis in way.axes), way.spacing)
