"""Class weights by the frequency of pixels, against NumPy's counts of the training part."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llm4seg.config import Config
from llm4seg.data.intensity import Intensity
from llm4seg.data.label_scheme import IGNORE, LabelScheme
from llm4seg.data.prepared import Prepared
from llm4seg.data.split import Split, read_split, write_split
from llm4seg.training.class_weights import balanced, class_weights, count_labels
from llm4seg.training.run import LocalRun
from llm4seg.training.trainer import Trainer
from llm4seg.utils.errors import InputError
from tests.finished_run import write_cases
from tests.lesion_volumes import VOLUMES
from tests.tiny import tiny_config
from tests.unit.datasets.test_volume_writer import VOLUME_CLASSES, drawn

CPU = torch.device("cpu")


def weights_of(config: Config, folder: Path, **changes: Any) -> np.ndarray:
    changes = {"training.class_weights": "auto"} | {f"training.{name}": value for name, value in changes.items()}
    weights = Trainer(config.override(changes), LocalRun(folder)).class_weights()
    assert weights is not None
    return weights.numpy()


def by_numpy(config: Config, cases: tuple[str, ...]) -> np.ndarray:
    data = Prepared(config.paths.prepared)
    labels = np.concatenate([data.resampled(case)[1].numpy().ravel() for case in cases])
    return len(labels) / (3 * np.array([(labels == label).sum() for label in range(3)]))


@pytest.mark.usefixtures("group")
def test_auto_is_by_the_cases_that_are_trained_on(config: Config, tmp_path: Path) -> None:
    train = read_split(config.paths.split).train
    weights = weights_of(config, tmp_path)
    assert weights == pytest.approx(by_numpy(config, train))
    assert weights[0] < 1 < weights[1]
    half = Trainer(config.override({"training.fraction": 0.5}), LocalRun(tmp_path)).split.train
    assert len(half) == len(train) // 2
    assert weights_of(config, tmp_path, fraction=0.5) == pytest.approx(by_numpy(config, half))


@pytest.mark.usefixtures("group")
def test_auto_knows_nothing_of_the_other_parts(config: Config, tmp_path: Path) -> None:
    split, before = read_split(config.paths.split), weights_of(config, tmp_path)
    prepared = Path(shutil.copytree(config.paths.prepared, tmp_path / "prepared"))
    other = {f"{case}/labels" for case in (*split.val, *split.test)}
    for shard in prepared.glob("*.safetensors"):
        tensors = load_file(shard)
        save_file({name: tensor * 0 + 2 if name in other else tensor for name, tensor in tensors.items()}, shard)
    assert np.array_equal(weights_of(config.override({"paths.prepared": str(prepared)}), tmp_path), before)


@pytest.mark.usefixtures("group")
def test_auto_counts_the_labels_with_their_noise(config: Config, tmp_path: Path) -> None:
    noisy = weights_of(config, tmp_path, label_noise={"boundary": 0, "drop": 1.0, "flip": 0.0})
    assert list(noisy) == [1, 0, 0]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("ignored", [False, True])
def test_of_volumes_are_the_counts_of_prepare(tmp_path: Path, ignored: bool) -> None:
    """Without a look at the volumes, unless voxels are ignored, which are not counted."""
    changes = {"model.bottleneck": "identity", "training.patch.size": [16, 16, 16]}
    config = tiny_config(tmp_path).override(VOLUMES | changes)
    cases = [drawn((20 + 4 * place, 24, 10), 1 + place % 2) for place in range(4)]
    if ignored:
        for case in cases:
            case.labels[:3] = IGNORE
    data = write_cases(config, cases, VOLUME_CLASSES, ignored).for_network((16, 16, 16), Intensity("unit"))
    train = tuple(data.cases)[:3]
    write_split(config.paths.split, Split("all", 0, train, tuple(data.cases)[3:], (), (), ()))
    labels = np.concatenate([data.resampled(case)[1].numpy().ravel() for case in train])
    counts = np.array([(labels == label).sum() for label in range(3)])
    trainer = Trainer(config.override({"training.class_weights": "auto"}), LocalRun(tmp_path))
    if not ignored:
        for shard in config.paths.prepared.glob("*.safetensors"):
            shard.unlink()
        trainer.data._shards.clear()
    weights = trainer.class_weights()
    assert weights is not None
    assert weights.numpy() == pytest.approx(counts.sum() / (3 * counts))


def test_the_mean_weight_of_a_pixel_is_one_and_a_class_that_is_not_there_has_none() -> None:
    weights = balanced(torch.tensor([90, 0, 6, 4]))
    assert weights.tolist() == pytest.approx([100 / 270, 0, 100 / 18, 100 / 12])
    assert float((weights * torch.tensor([90, 0, 6, 4])).sum() / 100) == pytest.approx(1)


@pytest.mark.usefixtures("group")
def test_ignored_pixels_are_not_counted(config: Config) -> None:
    section = config.override({"training.class_weights": "auto"}).training
    labels = torch.tensor([[0, 0, 0, 1], [IGNORE, IGNORE, IGNORE, 1]], dtype=torch.uint8)
    found = class_weights(section, LabelScheme(("a",), ignore=True), [count_labels(labels)], CPU)
    assert found is not None
    assert found.tolist() == pytest.approx([5 / 6, 5 / 4])


def test_weights_are_as_many_as_classes_and_the_background(config: Config) -> None:
    section = config.override({"training.class_weights": [0.2, 1, 3]}).training
    found = class_weights(section, LabelScheme(("a", "b")), [], CPU)
    assert found is not None
    assert found.tolist() == pytest.approx([0.2, 1, 3])
    with pytest.raises(InputError, match=r"class_weights: found 3 numbers, allowed: 2, of background, a$"):
        class_weights(section, LabelScheme(("a",)), [], CPU)


@pytest.mark.parametrize(("given", "shown"), [("auto", "auto"), ([1, 2], r"\[1.0, 2.0\]")])
def test_regions_have_no_weights(config: Config, given: Any, shown: str) -> None:
    regions = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2))
    section = config.override({"training.class_weights": given}).training
    with pytest.raises(InputError, match=f"class_weights: found {shown}, allowed for regions, a sigmoid each: null"):
        class_weights(section, regions, [], CPU)


@pytest.mark.parametrize(("given", "shown"), [("auto", "auto"), ([1, 2], r"\[1.0, 2.0\]")])
def test_a_sigmoids_loss_takes_none(config: Config, given: Any, shown: str) -> None:
    with pytest.raises(InputError, match=f"class_weights: found {shown}, allowed with training.loss: bce_dice: null"):
        config.override({"training.class_weights": given, "training.loss": "bce_dice"})
