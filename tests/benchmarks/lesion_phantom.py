"""Made-up patients with known lesions, as NIfTI files that `data.dataset: folder` reads.

Small bright lesions lie in textured tissue, as those of multiple sclerosis do in a brain, together 0.1 to 1 % of the
volume; beside them vessels and a rim that are as bright, so that brightness alone finds no lesion. Slices are two to
three times as far apart as pixels, by another spacing for each patient, and files are of several orientations.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from tests.volume_layouts import CODES, save

FIELD = (200.0, 200.0, 150.0)  # mm to the right, to the front, to the head
SHARE = (0.001, 0.01)  # of the volume that lesions take, in all
RADIUS = (3.0, 8.0)  # mm, of an ellipsoid's axes
VESSELS = 25
TISSUE, NOISE, TEXTURE = 300, 20, 15


def patient(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (x, y, z) int16, its labels uint8 and its affine."""
    random = np.random.default_rng([7, number])
    spacing = np.array([*[random.uniform(0.95, 1.2)] * 2, random.uniform(2.0, 3.0)])
    shape = tuple(int(side) for side in np.round(np.array(FIELD) / spacing))
    head = _ellipsoid(shape, spacing, np.array(FIELD) / 2, np.array([80.0, 95.0, 70.0]))
    inside = np.sqrt(head)
    labels = _lesions(random, inside < 0.8, spacing)
    bright = (inside < 1) & (inside > 0.95) | _vessels(random, shape, spacing) & (inside < 0.95)
    contrast = random.uniform(45, 70)
    image = TISSUE * (inside < 1) + contrast * (bright | (labels > 0)) * (inside < 1)
    image = ndimage.gaussian_filter(image.astype(np.float32), 0.4)  # a voxel has a share of what is beside it
    texture = ndimage.gaussian_filter(random.standard_normal(shape).astype(np.float32), 8 / spacing)
    image += (inside < 1) * TEXTURE * texture / texture.std()
    image += NOISE * random.standard_normal(shape).astype(np.float32)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = random.uniform(-50, 50, 3)
    return np.clip(image, 0, None).round().astype(np.int16), labels, affine


def _ellipsoid(shape: tuple[int, ...], spacing: np.ndarray, center: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The squared distance of each voxel from the center, 1 on the ellipsoid."""
    axes = np.ogrid[tuple(slice(0, side) for side in shape)]
    parts = zip(axes, spacing, center, radii, strict=True)
    squares: np.ndarray = sum((((axis + 0.5) * step - middle) / radius) ** 2 for axis, step, middle, radius in parts)
    return squares


def _lesions(random: np.random.Generator, where: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Labels with ellipsoids, until they take a share of the volume out of SHARE."""
    labels, places = np.zeros(where.shape, np.uint8), np.argwhere(where)
    wanted = labels.size * np.exp(random.uniform(*np.log(SHARE)))
    while labels.sum() < wanted:
        center, radii = places[random.integers(len(places))], random.uniform(*RADIUS, 3)
        low = np.maximum(center - np.ceil(RADIUS[1] / spacing).astype(int), 0)
        box = tuple(slice(first, last) for first, last in zip(low, 2 * center - low + 1, strict=True))
        part = labels[box]
        part[_ellipsoid(part.shape, spacing, (center - low + 0.5) * spacing, radii) < 1] = 1
    return labels


def _vessels(random: np.random.Generator, shape: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    """Winding tubes of 2 to 3 mm through the whole field."""
    lines = np.zeros(shape, bool)
    for _ in range(VESSELS):
        steps = random.standard_normal((600, 3))
        ways = ndimage.gaussian_filter1d(steps, 15, axis=0) * 4 + random.standard_normal(3) * 0.4
        points = random.uniform(0.2, 0.8, 3) * FIELD + np.cumsum(0.8 * ways / np.linalg.norm(ways, axis=1)[:, None], 0)
        voxels = np.floor(points / spacing).astype(int)
        voxels = voxels[((voxels >= 0) & (voxels < shape)).all(axis=1)]
        lines[tuple(voxels.T)] = True
    distance: np.ndarray = ndimage.distance_transform_edt(~lines, sampling=tuple(spacing))
    return distance < random.uniform(1.0, 1.5)


def write(root: Path, patients: int = 20) -> None:
    """Files images/patient-00.nii.gz and masks/patient-00.nii.gz, of several orientations."""
    for number in range(patients):
        image, labels, affine = patient(number)
        for folder, values in (("images", image), ("masks", labels)):
            save(root / folder / f"patient-{number:02d}.nii.gz", values, CODES[number % len(CODES)], affine)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.lesion_phantom",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a new folder, to be data.root")
    parser.add_argument("--patients", type=int, default=20, help="default: %(default)s")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.patients)


if __name__ == "__main__":
    main()
