"""Masks and activation maps on the token grid, against NumPy."""

import numpy as np
import pytest
import torch

from llm4seg.analysis.maps import activation, token_mask

SEEDED = torch.Generator().manual_seed(0)
TOKENS_TD = torch.randn(12, 7, generator=SEEDED)


def test_a_cell_is_in_the_mask_from_half_of_its_pixels_on() -> None:
    mask_HW = torch.zeros(4, 8, dtype=torch.bool)
    mask_HW[:2, 0] = True  # 2 of the 4 pixels of a cell
    mask_HW[2, 4] = True  # 1 of 4
    mask_HW[2:, 6:] = True
    expected = [[True, False, False, False], [False, False, False, True]]
    assert token_mask(mask_HW, (2, 4)).tolist() == expected


def test_cells_of_a_volume() -> None:
    mask_DHW = torch.zeros(4, 4, 4, dtype=torch.bool)
    mask_DHW[:2, 2:, :2] = True
    found = token_mask(mask_DHW, (2, 2, 2))
    assert found.nonzero().tolist() == [[0, 1, 0]]


def test_grids_that_do_not_divide_the_image_have_overlapping_cells() -> None:
    mask = torch.tensor([[True, True, True, False, False]] * 5)
    # cells of 5 pixels on a grid of 2 are 0-2 and 2-4, so that the middle one is in both
    assert token_mask(mask, (2, 2)).tolist() == [[True, False]] * 2


def _scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def test_magnitude_norm_and_frequency_are_those_of_numpy() -> None:
    tokens = TOKENS_TD.numpy().astype(float)
    phases = np.angle(np.fft.fft(tokens, axis=1))
    expected = {
        "magnitude": _scaled(np.sqrt(((tokens - tokens.mean(0)) ** 2).sum(1))),
        "norm": _scaled(np.sqrt((tokens**2).sum(1))),
        "frequency": _scaled(np.sqrt(((phases - phases.mean(0)) ** 2).sum(1))),
    }
    for kind, values in expected.items():
        np.testing.assert_allclose(activation(TOKENS_TD, kind).numpy(), values, atol=1e-12, err_msg=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["magnitude", "norm", "frequency"])
def test_equal_tokens_activate_nothing(kind: str) -> None:
    assert activation(TOKENS_TD[:1].expand(12, 7), kind).tolist() == [0.0] * 12  # type: ignore[arg-type]
