"""A training on a layer of a vision transformer, from its checkpoint to metrics, by the stages."""

from pathlib import Path

import pytest

from llm4seg.config import Config
from llm4seg.models.saved import load_trained
from llm4seg.utils.files import read_json
from pipelines.evaluate import evaluate
from pipelines.fetch_llm import fetch_llm
from pipelines.train import train
from tests.tiny_llm import save_llm
from tests.tiny_vision import WIDTH, tiny_encoder
from tests.training import history_of, weights_of


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("dinov3_vit", {}), ("dinov2", {"model.llm.training": "lora", "model.llm.dtype": "bf16", "model.llm.norm": True})],
    ids=["dinov3", "dinov2 with LoRA in bf16"],
)
def test_the_stages_train_and_measure_a_vision_layer(
    config: Config, tmp_path: Path, kind: str, changes: dict[str, object]
) -> None:
    """A second training has the same bits; model.json names the checkpoint and the layer's sha256."""
    save_llm(tmp_path / "encoder", tiny_encoder(kind))
    stores = {f"paths.{name}": str(tmp_path / name) for name in ("llm", "llm_used")}
    short = {"training.epochs": 2, "cluster.launcher": "process", "model.llm.layer": 3}
    config = config.override({"llm.source": str(tmp_path / "encoder"), **stores, **short, **changes})
    fetch_llm(config)
    results = []
    for _ in range(2):
        train(config)
        results.append((history_of(config), weights_of(config)))
    assert results[0] == results[1]
    evaluate(config)
    assert 0 <= read_json(config.paths.metrics)["dice"]["mean"] <= 1
    described = read_json(config.paths.model / "model.json")["llm"]
    assert (described["source"], described["layers"][0]["layer"]) == ("encoder", 3)
    trained = load_trained(config.paths.model, config.paths.llm_used)
    assert trained.get_parameter("bottleneck.adapter_in.weight").shape[0] == WIDTH
