"""Augmentation moves images and labels together, in 2-D and 3-D, and follows (seed, epoch, sample) alone."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from llm4seg.config.schema import Augment
from llm4seg.data.augment import augment
from llm4seg.data.augment_draws import Sides
from llm4seg.data.intensity_augment import CHANGES, SHARE

NONE = ("rotate", "scale", "shift", "intensity", "color", "elastic", *CHANGES)
STILL = Augment.model_validate({"flip": (), "quarter_turns": False} | dict.fromkeys(NONE, 0))
GEOMETRY = {"flip": (0, 1), "quarter_turns": True, "rotate": 30, "scale": 0.2, "shift": 0.1}
LIVELY = STILL.model_copy(update=GEOMETRY | {"intensity": 0.2, "color": 0.3})
VALUES = {"noise": 0.3, "blur": 1.0, "contrast": 0.3, "low_resolution": 0.4, "gamma": 0.6, "gamma_inverted": 0.6}


def batch(size: tuple[int, ...], samples: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(samples, *size, dtype=torch.int64)
    labels[(slice(None), *(slice(side // 4, side // 2) for side in size))] = 2
    return labels[:, None].float(), labels


@pytest.mark.parametrize("size", [(24, 32), (16, 24, 20)])
def test_nothing_asked_for_changes_nothing(size: tuple[int, ...]) -> None:
    images, labels = batch(size)
    out_images, out_labels = augment(images, labels, [0, 1, 2, 3], STILL, seed=0, epoch=0)
    torch.testing.assert_close(out_images, images, atol=1e-4, rtol=0)
    assert torch.equal(out_labels, labels)


@pytest.mark.parametrize("size", [(48, 64), (32, 48, 40)])
def test_labels_follow_their_image(size: tuple[int, ...]) -> None:
    images, labels = batch(size)
    still_intensity = LIVELY.model_copy(update={"intensity": 0.0})
    out_images, out_labels = augment(images, labels, [0, 1, 2, 3], still_intensity, seed=1, epoch=2)
    assert not torch.equal(out_labels, labels)
    inside, outside = out_images[:, 0] > 1.9, out_images[:, 0] < 0.1  # away from interpolated borders
    assert (out_labels[inside] == 2).all()
    assert (out_labels[outside] == 0).all()
    assert inside.any()


@pytest.mark.parametrize(("size", "channels"), [((24, 24), 1), ((24, 24), 3), ((16, 16, 12), 1)])
def test_a_sample_changes_alike_in_any_company(size: tuple[int, ...], channels: int) -> None:
    """Alone, in a batch of four, and in another order, with every change switched on."""
    everything = LIVELY.model_copy(update=VALUES | {"elastic": 3.0})
    plain, labels = batch(size)
    images = plain.repeat(1, channels, *[1] * len(size)) + torch.rand(1, channels, *size)
    for first in range(0, 40, 4):
        samples = list(range(first, first + 4))
        together, moved = augment(images, labels, samples, everything, seed=3, epoch=1)
        reversed_images, _ = augment(images, labels, samples[::-1], everything, seed=3, epoch=1)
        for place, sample in enumerate(samples):
            alone, alone_labels = augment(images[:1], labels[:1], [sample], everything, seed=3, epoch=1)
            assert torch.equal(together[place], alone[0])
            assert torch.equal(moved[place], alone_labels[0])
            assert torch.equal(together[place], reversed_images[3 - place])


def test_epochs_and_seeds_differ() -> None:
    images, labels = batch((24, 24), 1)
    first = augment(images, labels, [0], LIVELY, seed=0, epoch=0)[0]
    assert not torch.allclose(first, augment(images, labels, [0], LIVELY, seed=0, epoch=1)[0])
    assert not torch.allclose(first, augment(images, labels, [0], LIVELY, seed=1, epoch=0)[0])


def test_a_quarter_turn_of_an_oblong_image_keeps_shapes() -> None:
    """Rotation is in pixels: a square stays a square although the image is oblong."""
    labels = torch.zeros(1, 32, 64, dtype=torch.int64)
    labels[0, 12:20, 28:36] = 1
    turn = STILL.model_copy(update={"rotate": 45.0})
    _, turned = augment(labels[:, None].float(), labels, [0], turn, seed=0, epoch=0)
    rows, columns = turned[0].nonzero().float().T
    assert abs((rows.max() - rows.min()) - (columns.max() - columns.min())) <= 2
    assert abs(int(turned.sum()) - 64) <= 8


def test_a_mirror_image() -> None:
    images = torch.arange(8.0).view(1, 1, 1, 8).expand(16, 1, 8, 8)
    mirror = STILL.model_copy(update={"flip": (1,)})
    out, _ = augment(images, images[:, 0].long(), list(range(16)), mirror, seed=0, epoch=0)
    mirrored = [torch.allclose(image, images[0].flip(-1), atol=1e-4) for image in out]
    unchanged = [torch.allclose(image, images[0], atol=1e-4) for image in out]
    assert any(mirrored)
    assert any(unchanged)
    assert all(one or other for one, other in zip(mirrored, unchanged, strict=True))


@pytest.mark.parametrize("axis", [0, 1, None])
def test_a_flip_of_left_and_right_exchanges_their_labels(axis: int | None) -> None:
    """In the samples that are mirrored along that axis, and in no others."""
    images, labels = batch((24, 32), 16)
    labels[:, :6] = 3
    mirror = STILL.model_copy(update={"flip": (1,)})
    samples = list(range(16))
    plain_images, plain = augment(images, labels, samples, mirror, seed=0, epoch=0)
    same_images, found = augment(images, labels, samples, mirror, 0, 0, Sides(((2, 3),), lambda sample: axis))
    assert torch.equal(plain_images, same_images)
    flipped = (images - plain_images).abs().flatten(1).amax(1) > 1
    assert 0 < flipped.sum() < 16
    exchanged = torch.where(plain == 2, 3, torch.where(plain == 3, 2, plain))
    for sample in samples:
        assert torch.equal(found[sample], (exchanged if axis == 1 and flipped[sample] else plain)[sample])


def test_one_image_has_one_mask_with_turns_and_flips_of_left_and_right() -> None:
    """A flip and half a turn is the other flip: an image that comes out equal must have equal labels then."""
    images, labels = torch.rand(1, 1, 16, 16), torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[:, 4:9, 2:6], labels[:, 4:9, 10:14] = 1, 2
    section = STILL.model_copy(update={"flip": (1,), "quarter_turns": True})
    masks: dict[tuple[int, ...], torch.Tensor] = {}
    for sample in range(48):
        found, mask = augment(images, labels, [sample], section, 0, 0, Sides(((1, 2),), lambda sample: 1))
        key = tuple((found * 1000).round().int().flatten().tolist())
        assert torch.equal(masks.setdefault(key, mask), mask)
    assert len(masks) == 8


@pytest.mark.parametrize("size", [(24, 24), (16, 16, 12)])
def test_quarter_turns_are_exact(size: tuple[int, ...]) -> None:
    """All four occur, in the plane of rows and columns, of the image and its labels alike."""
    image = torch.rand(1, 1, *size)
    labels = (image[:, 0] > 0.5).long()
    turn = STILL.model_copy(update={"quarter_turns": True})
    seen = set()
    for sample in range(24):
        found, found_labels = augment(image, labels, [sample], turn, seed=0, epoch=0)
        turns = [k for k in range(4) if torch.allclose(found, torch.rot90(image, k, (2, 3)), atol=1e-4)]
        assert len(turns) == 1
        assert torch.equal(found_labels, torch.rot90(labels, turns[0], (1, 2)))
        seen.update(turns)
    assert seen == {0, 1, 2, 3}


def test_colors_change_together_and_gray_images_do_not() -> None:
    jitter = STILL.model_copy(update={"color": 0.3})
    images, labels = torch.rand(4, 3, 8, 8), torch.zeros(4, 8, 8, dtype=torch.int64)
    found, _ = augment(images, labels, [0, 1, 2, 3], jitter, seed=0, epoch=0)
    for before, after in zip(images, found, strict=True):
        fitted = torch.linalg.lstsq(before.flatten(1).T, after.flatten(1).T).solution
        assert torch.allclose(before.flatten(1).T @ fitted, after.flatten(1).T, atol=1e-4)  # one linear map an image
        assert not torch.allclose(fitted, torch.eye(3), atol=0.01)
        assert (fitted.sum(1) - 1).abs().max() < 0.35
    gray, _ = augment(images[:, :1], labels, [0, 1, 2, 3], jitter, seed=0, epoch=0)
    torch.testing.assert_close(gray, images[:, :1], atol=1e-4, rtol=0)


def test_what_is_off_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random numbers of the affine map, of gain, offset and color are those of versions without the rest."""
    seeds, default_rng = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(seed) or default_rng(seed))
    images, labels = batch((24, 24))
    augment(images, labels, [5, 6, 7, 8], LIVELY, seed=3, epoch=1)
    assert seeds == [[3, 1, sample] for sample in (5, 6, 7, 8)]
    seeds.clear()
    augment(images[:1], labels[:1], [5], LIVELY.model_copy(update=VALUES | {"elastic": 3.0}), seed=3, epoch=1)
    assert seeds == [[3, 1, 5], *([3, 1, 5, stream] for stream in range(1, 8))]


def changed(parameter: str, value: float, samples: int = 400, channels: int = 1) -> torch.Tensor:
    """Which channels of random images (samples, channels) one change alters, all others being off."""
    images, labels = torch.rand(1, channels, 8, 8).expand(samples, -1, -1, -1), torch.zeros(samples, 8, 8)
    order, section = list(range(samples)), STILL.model_copy(update={parameter: value})
    plain, _ = augment(images, labels, order, STILL, seed=0, epoch=0)
    found, _ = augment(images, labels, order, section, seed=0, epoch=0)
    return (found != plain).flatten(2).any(2)


@pytest.mark.parametrize("name", ["elastic", "noise", "contrast", "low_resolution", "gamma", "gamma_inverted"])
def test_a_share_of_the_images_changes_and_no_other(name: str) -> None:
    """Within four standard deviations of the binomial distribution, as in nnU-Net."""
    chances = {"noise": 0.1, "contrast": 0.15, "gamma_inverted": 0.1, "gamma": 0.3, "elastic": 0.2}
    chance = {**chances, "low_resolution": 0.25 * SHARE}[name]
    found = int(changed(name, {**VALUES, "elastic": 3.0}[name]).sum())
    assert abs(found - 400 * chance) < 4 * (400 * chance * (1 - chance)) ** 0.5


def test_channels_are_blurred_and_sampled_down_one_by_one() -> None:
    for name in ("blur", "low_resolution"):
        altered = changed(name, VALUES[name], samples=100, channels=3).sum(1)
        assert set(altered.tolist()) >= {0, 1, 2}


def test_labels_and_places_are_those_of_the_geometry_alone() -> None:
    """Switching on what changes values neither draws other geometry nor touches images that are not drawn."""
    images, labels = torch.rand(64, 1, 24, 24), torch.randint(0, 4, (64, 24, 24))
    labels[:, 12:] = 255
    samples = list(range(64))
    plain, moved = augment(images, labels, samples, LIVELY, seed=0, epoch=0)
    found, same = augment(images, labels, samples, LIVELY.model_copy(update={"noise": 0.3}), seed=0, epoch=0)
    assert torch.equal(moved, same)
    assert set(moved.unique().tolist()) == {0, 1, 2, 3, 255}
    noisy = (found != plain).flatten(1).any(1)
    assert 0 < noisy.sum() < 16
    deviations = (found - plain)[noisy].flatten(1).std(1)
    assert (deviations < 0.33).all()


def test_monai_is_imported_for_the_blur_alone() -> None:
    """The import takes ten seconds."""
    code = (
        "import sys, torch; from tests.unit.data.test_augment import LIVELY, VALUES, augment, batch; "
        "others = VALUES | {'blur': 0, 'elastic': 2.0}; "
        "augment(*batch((16, 16), 64), list(range(64)), LIVELY.model_copy(update=others), 0, 0); "
        "assert 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def centers(labels_S: torch.Tensor, spacing: tuple[float, ...]) -> np.ndarray:
    """The middle of each of two labels in mm, or pixels."""
    return np.array([(labels_S == label).nonzero().double().mean(0).numpy() * spacing for label in (1, 2)])


@pytest.mark.parametrize(("size", "turned"), [((40, 40, 20), True), ((40, 40, 12), False)])
def test_volumes_are_turned_in_millimeters_and_flat_patches_in_their_plane(size: tuple[int, ...], turned: bool) -> None:
    """Two balls stay as far apart as they were; in a flat patch none leaves its slices."""
    spacing, section = (1.0, 1.0, 2.0), STILL.model_copy(update={"rotate": 40.0})
    labels = torch.zeros(12, *size, dtype=torch.int64)
    labels[:, 10:14, 18:22, 4:6], labels[:, 26:30, 18:22, 7:9] = 1, 2
    images, samples = torch.zeros(12, 1, *size), list(range(12))
    _, found = augment(images, labels, samples, section, 0, 0, spacing=spacing)
    before = centers(labels[0], spacing)
    tilted = []
    for labels_S in found:
        after = centers(labels_S, spacing)
        assert np.linalg.norm(after[1] - after[0]) == pytest.approx(np.linalg.norm(before[1] - before[0]), abs=1)
        tilted.append(abs((after[1] - after[0])[2] - (before[1] - before[0])[2]))
    assert (max(tilted) > 2) == turned
    _, in_voxels = augment(images, labels, samples, section, 0, 0)
    assert not torch.equal(in_voxels, found)
