"""Dataset `phantom`: synthetic images of synthetic patients, speckled like ultrasound, with irregular blobs.

A case depends on the seed, its own number and its patient's, so adding cases changes no earlier case. The cases
of a patient share gain, depth attenuation, speckle size, tissue texture and lesion contrast.
"""

import numpy as np
from scipy import ndimage

from llm4seg.config.schema import PhantomData
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.datasets.cases import Dataset, RawCase
from llm4seg.utils.errors import InputError

_PATIENT, _CASE = 0, 1  # the two streams of random numbers


def phantom(section: PhantomData, spatial_dims: int) -> Dataset:
    """Images or volumes, uint8, at 1 mm with `classes` kinds of lesion, from darker to brighter than the tissue."""
    if len(section.size) != spatial_dims:
        raise InputError(
            f"data.phantom.size: found {list(section.size)}, allowed: {spatial_dims} numbers (data.spatial_dims)"
        )
    names = ("lesion",) if section.classes == 1 else tuple(f"lesion {k + 1}" for k in range(section.classes))
    return Dataset(
        name="phantom",
        license="none: made by this program",
        citation="none",
        note="made-up images: they show that the method runs, not that it helps",
        scheme=LabelScheme(names),
        cases=(_case(section, number) for number in range(section.cases)),
        total=section.cases,
    )


def _case(section: PhantomData, number: int) -> RawCase:
    patient = number % section.patients
    patient_random = np.random.default_rng([section.seed, _PATIENT, patient])
    random = np.random.default_rng([section.seed, _CASE, number])
    labels = _lesions(random, section, always=number % section.classes)
    return RawCase(
        id=f"case-{number:04d}",
        group=f"patient-{patient:03d}",
        source=f"phantom seed {section.seed}",
        image=_image(patient_random, random, labels, section.classes)[None],
        labels=labels,
        spacing=(1.0,) * len(section.size),
    )


def _lesions(random: np.random.Generator, section: PhantomData, always: int) -> np.ndarray:
    """Labels of one or two blobs of class `always`, over one of each other class in half of the cases."""
    kinds = [kind for kind in range(section.classes) if kind != always and random.random() < 0.5]
    labels = np.zeros(section.size, dtype=np.uint8)
    for kind in [*kinds, *[always] * random.integers(1, 3)]:
        labels[_blob(random, section.size)] = kind + 1
    return labels


def _blob(random: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """A tilted ellipsoid whose outline smooth noise makes irregular; boolean."""
    extent = np.asarray(size, dtype=float)
    center = extent * random.uniform(0.25, 0.75, len(size))
    radii = extent.min() * random.uniform(0.09, 0.2, len(size))
    tilt = np.linalg.qr(random.standard_normal((len(size), len(size))))[0]
    offsets = np.moveaxis(np.indices(size), 0, -1) - center
    distance = np.linalg.norm(offsets @ tilt / radii, axis=-1)
    return distance + 0.25 * _smooth_noise(random, size, 0.35 * radii.mean()) < 1


def _smooth_noise(random: np.random.Generator, size: tuple[int, ...], sigma: float) -> np.ndarray:
    """Gaussian noise with a correlation length of `sigma` pixels, mean 0, standard deviation 1."""
    noise = ndimage.gaussian_filter(random.standard_normal(size), sigma, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def _image(
    patient_random: np.random.Generator, random: np.random.Generator, labels: np.ndarray, classes: int
) -> np.ndarray:
    """Log-compressed speckle of the tissue's echoes, uint8: fully developed speckle is the modulus of complex noise."""
    gain, attenuation = patient_random.uniform(0.42, 0.62), patient_random.uniform(0.05, 0.3)
    grain, texture, contrast = (
        patient_random.uniform(0.7, 1.3),
        patient_random.uniform(0.03, 0.08),
        patient_random.uniform(0.16, 0.26),
    )
    steps = np.array([0.0, *_contrasts(classes)]) * contrast
    depth = np.linspace(0, 1, labels.shape[0]).reshape(-1, *[1] * (labels.ndim - 1))
    echoes = gain - attenuation * depth + texture * _smooth_noise(random, labels.shape, min(labels.shape) / 10)
    echoes = echoes + ndimage.gaussian_filter(steps[labels], 0.7)
    wide = (grain, *[1.6 * grain] * (labels.ndim - 1))  # finer along the beam than across it
    real, imaginary = (ndimage.gaussian_filter(random.standard_normal(labels.shape), wide) for _ in range(2))
    amplitude = np.hypot(real, imaginary)
    speckle = np.log(np.maximum(amplitude / amplitude.mean(), 1e-2))
    return np.clip(255 * (echoes + 0.13 * speckle), 0, 255).astype(np.uint8)


def _contrasts(classes: int) -> np.ndarray:
    """Brightness of each class against the tissue's, -1 to 1, never 0: one class is dark, two are dark and bright."""
    steps = np.linspace(-1, 1, classes + 1)
    return steps[steps != 0][:classes]
