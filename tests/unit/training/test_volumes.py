"""A volume's loss by slabs is that of the whole volume; idle workers pass forward as often as the others."""

from typing import Any

import pytest
import torch
from torch import Tensor

from llm4seg.data.intensity import Intensity
from llm4seg.data.label_scheme import LabelScheme
from llm4seg.inference.sliding_window import window_count
from llm4seg.objectives.losses import build_loss
from llm4seg.training import volumes
from llm4seg.training.run import LocalRun
from llm4seg.training.volumes import predicted_volumes, slabs
from tests.finished_run import write_cases
from tests.lesion_volumes import VOLUMES
from tests.tiny import tiny_config
from tests.unit.datasets.test_volume_writer import VOLUME_CLASSES, drawn

REGIONS = LabelScheme(("whole", "core"), ((1, 2), (2,)), (1, 2), ignore=True)


@pytest.mark.parametrize("scheme", [LabelScheme(("a", "b")), LabelScheme(("a", "b"), ignore=True), REGIONS])
def test_sums_of_slabs_are_those_of_the_volume(scheme: LabelScheme, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "VALUES", 300)
    torch.manual_seed(0)
    logits, labels = torch.randn(1, 2 if scheme.regions else 3, 11, 6, 5), torch.randint(0, 3, (1, 11, 6, 5))
    if scheme.ignore:
        labels[0, 3:6] = 255  # a whole slab
    loss = build_loss("dice_ce", scheme)
    parts = list(slabs(logits, labels))
    assert len(parts) > 2
    assert torch.equal(torch.cat([truth for _, truth in parts], dim=1), labels)
    found = sum(loss.sums(part, truth).double() for part, truth in parts)
    torch.testing.assert_close(found.float(), loss.sums(logits, labels), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_all_workers_make_equally_many_passes(tmp_path: Any, workers: int) -> None:
    """Volumes take other numbers of windows, and the last ones leave workers without any."""
    config = tiny_config(tmp_path).override(VOLUMES | {"data.spacing": [1, 1, 1]})
    shapes = [(20, 24, 10), (34, 24, 10), (20, 24, 33), (9, 24, 10)]
    cases = [drawn(shape, 1 + place % 2) for place, shape in enumerate(shapes)]
    data = write_cases(config, cases, VOLUME_CLASSES).for_network((16, 16, 8), Intensity("unit"))
    made, seen = [], set[int]()
    for rank in range(workers):
        passes = 0

        def network(images: Tensor) -> Tensor:
            nonlocal passes
            passes += len(images)
            return images.expand(-1, 3, -1, -1, -1).clone()

        run = LocalRun(tmp_path)
        run.rank, run.world_size = rank, workers
        rounds = list(predicted_volumes(network, data, list(data.cases), run))
        seen |= {labels.numel() for weight, _, labels in rounds if weight}
        assert all(logits.shape[2:] == labels.shape[1:] for _, logits, labels in rounds)
        made.append((len(rounds), passes))
    assert len(set(made)) == 1
    assert len(seen) == len(cases)
    if workers == 1:
        assert made[0] == (4, sum(window_count(shape, data.size) for shape in shapes))
