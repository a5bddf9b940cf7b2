"""Augmentation moves images and labels together, in 2-D and 3-D, and follows (seed, epoch, sample) alone."""

import pytest
import torch

from llm4seg.config.schema import Augment
from llm4seg.data.augment import Sides, augment

STILL = Augment(flip=(), quarter_turns=False, rotate=0, scale=0, shift=0, intensity=0, color=0)
LIVELY = Augment(flip=(0, 1), quarter_turns=True, rotate=30, scale=0.2, shift=0.1, intensity=0.2, color=0.3)


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


def test_a_sample_changes_alike_in_any_company() -> None:
    images, labels = batch((24, 24))
    together, _ = augment(images, labels, [5, 6, 7, 8], LIVELY, seed=3, epoch=1)
    alone, _ = augment(images[:1], labels[:1], [7], LIVELY, seed=3, epoch=1)
    torch.testing.assert_close(together[2], alone[0])


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
