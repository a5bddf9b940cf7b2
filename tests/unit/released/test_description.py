"""Converted checkpoints whose images' size is given: `llm4seg predict` segments pictures as the released code would."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import llm4seg
from llm4seg import cli
from llm4seg.export.model_card import model_card
from llm4seg.llm.store import LayerStore
from llm4seg.models.saved import read_metadata
from llm4seg.released.convert import main
from llm4seg.utils.errors import InputError
from llm4seg.utils.files import read_json
from tests.import_graph import ROOT
from tests.official import LAYER, official_state, official_store
from tests.official_reference import released_logits, released_state

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LLAMA = {"heads": 6, "kv_heads": 2, "eps": 1e-5}  # of the fixture


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official_store(tmp_path_factory.mktemp("llm")).folder


def converted(folder: Path, store: Path, state: dict[str, Tensor], *words: str) -> Path:
    torch.save(state, folder / "official.pth")
    main([str(folder / "official.pth"), "--store", str(store), "--params", str(ROOT / "params.yaml"), *words])
    return folder / "official"


def refusal(folder: Path, store: Path, state: dict[str, Tensor], *words: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        converted(folder, store, state, *words)
    assert not (folder / "official").exists()
    return str(stopped.value.code)


def released_input(picture_RCK: np.ndarray) -> Tensor:
    """(1, 3, rows, columns) as the released loader makes it: OpenCV's BGR, RGB's statistics, divided by 255 again."""
    normalized = (picture_RCK[..., ::-1].astype(np.float64) / 255 - MEAN) / STD / 255
    return torch.tensor(normalized.transpose(2, 0, 1)[None], dtype=torch.float32)


def test_predict_gives_the_released_networks_masks(tmp_path: Path, store: Path) -> None:
    """A picture that needs no resizing; the head's bias is moved so that about half of its pixels are foreground."""
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (8, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # blocks, 64 x 48
    state = official_state()
    with torch.no_grad():
        state["stem.conv.0.weight"] *= 255  # so that the picture counts more than biases do
        state["Conv_1x1.bias"] -= released_logits(state, released_input(picture), **LLAMA).median()
        logits = released_logits(state, released_input(picture), **LLAMA)[0, 0].numpy()
    model = converted(tmp_path, store, state, "--size", "64,48")
    (tmp_path / "in").mkdir()
    Image.fromarray(picture).save(tmp_path / "in" / "one.png")
    words = ["predict", model, "-i", tmp_path / "in", "-o", tmp_path / "out", "--llm", store]
    cli.main([*map(str, words)])
    mask = np.asarray(Image.open(tmp_path / "out" / "one.png"))
    surely = np.abs(logits) > 1e-5  # their standard deviation is 1e-3
    assert 0.3 < mask.mean() < 0.7
    assert surely.mean() > 0.98
    assert np.array_equal(mask[surely], (logits > 0)[surely])
    with pytest.raises(SystemExit, match=r"--tta: found trained, but .*official was converted and does not say"):
        cli.main([*map(str, words), "--tta", "trained"])


def test_an_image_of_another_size_is_resized_and_its_mask_back(tmp_path: Path, store: Path) -> None:
    model = llm4seg.load(converted(tmp_path, store, official_state(), "--size", "64"), llm=store)
    assert model.preprocessing[0].size == (64, 64)
    assert model.predict(np.random.default_rng(0).integers(0, 256, (3, 90, 70), dtype=np.uint8)).shape == (90, 70)


def test_a_gray_networks_intensities_are_given(tmp_path: Path, store: Path) -> None:
    state = released_state(LayerStore(store).load(LAYER), channels=1, outputs=4)
    described = read_json(converted(tmp_path, store, state, "--size", "32", "--intensity", "unit") / "model.json")
    assert (described["data"]["size"], described["data"]["intensity"]) == ([32, 32], "unit")
    model = llm4seg.load(tmp_path / "official", llm=store)
    assert model.classes == ("class 1", "class 2", "class 3")
    assert model.predict(np.random.default_rng(0).random((40, 36), dtype=np.float32)).shape == (40, 36)


def test_without_a_size_load_says_how_to_give_one(tmp_path: Path, store: Path, capsys: pytest.CaptureFixture) -> None:
    model = converted(tmp_path, store, official_state())
    assert "convert it with --size, as in --size 256" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(InputError, match=r"data.size: None .* convert it again with --size and --intensity \(python"):
        llm4seg.load(model, llm=store)
    card = model_card(read_metadata(model)[0], None, "hf://org/name", None)
    assert "images resized to a size that is not recorded" in card
    assert "- class 1: 1 in masks" in card


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--size", "100"), "--size: found 100, allowed: multiples of 16"),
        (("--size", "0"), "--size: found 0, allowed: multiples of 16"),
        (("--size", "64,40"), "--size: found 64,40, allowed: multiples of 16"),
        (("--size", "64x64"), "--size: found 64x64, allowed: rows and columns, as in 256 or 256,192"),
        (("--size", "16,16,16"), "--size: found 16,16,16, allowed: rows and columns"),
        (("--size", "4096"), "--size: found 4096 x 4096, 65536 tokens, allowed: 4096 (max_tokens)"),
    ],
)
def test_sizes_that_no_released_network_reads(tmp_path: Path, store: Path, words: tuple[str], reason: str) -> None:
    assert reason in refusal(tmp_path, store, official_state(), *words)


def test_the_released_normalization_is_for_colors(tmp_path: Path, store: Path) -> None:
    state = released_state(LayerStore(store).load(LAYER), channels=1)
    line = refusal(tmp_path, store, state, "--size", "64", "--intensity", "released")
    assert "--intensity: found released for 1 channels, allowed: unit or zscore" in line
