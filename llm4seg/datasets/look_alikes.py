"""Images that look alike, by average hash: the only sign of one patient where a data set names none."""

from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform

from llm4seg.datasets.image_io import read_image

SIDE = 16  # of the hash, in bits
# of SIDE * SIDE bits that differ between images that look alike: JPEG and resizing change up to 5, between phantoms of
# different patients at least 15 differ
MOST_BITS = 6


def groups_of_look_alikes(images: dict[str, Path]) -> dict[str, str]:
    """The group of each image: the first one's name that looks like it, or like another of the group."""
    if not images:
        return {}
    names = [*images]
    hashes = np.array([average_hash(path) for path in images.values()])
    bits_apart = squareform(np.rint(pdist(hashes, "hamming") * hashes.shape[1]))
    components = connected_components(bits_apart <= MOST_BITS, directed=False)[1]
    first = {int(component): name for name, component in reversed([*zip(names, components, strict=True)])}
    return {name: first[int(component)] for name, component in zip(names, components, strict=True)}


def average_hash(path: Path) -> np.ndarray:
    """Which pixels of an image, shrunk to SIDE x SIDE gray ones, are brighter than their mean; boolean, flat."""
    from PIL import Image

    gray = Image.fromarray(read_image(path).values.mean(axis=0)[..., 0].astype(np.float32))
    small = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX))
    return (small > small.mean()).ravel()
