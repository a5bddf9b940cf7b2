"""Finished runs are kept in a folder or in a bucket, each whole."""

from pathlib import Path

import pytest

from llm4seg.config import Config
from llm4seg.study.run_store import RunStore
from llm4seg.utils.files import write_json
from tests.servers import BUCKET, S3
from tests.tiny import tiny_config


def keeps(config: Config) -> None:
    store = RunStore(config)
    assert store.read("run-a") is None
    store.put("run-a", {"error": "first"})
    store.put("run-a", {"rows": [{"dice": 0.5}]})
    assert RunStore(config).read("run-a") == {"rows": [{"dice": 0.5}]}
    assert store.read("run-b") is None
    model = config.paths.study_runs.parent / "written"
    write_json(model / "model.json", {"config": {}})
    assert not store.has_model("run-a")
    (model / "weights.safetensors").write_bytes(bytes(range(256)) * 1000)
    store.put_model("run-a", model)
    assert RunStore(config).has_model("run-a")
    store.get_model("run-a", model.parent / "read" / "again")
    for file in model.iterdir():
        assert (model.parent / "read" / "again" / file.name).read_bytes() == file.read_bytes()


def test_in_a_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    keeps(config)
    assert sorted(file.name for file in config.paths.study_runs.iterdir()) == ["run-a", "run-a.json"]
    (config.paths.study_runs / "run-a" / "model.json").unlink()
    assert not RunStore(config).has_model("run-a")  # half a model is none


def test_what_cannot_be_written_leaves_the_run_before(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    RunStore(config).put("run-a", {"rows": []})
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunStore(config).put("run-a", {"rows": [float("nan")]})
    assert RunStore(config).read("run-a") == {"rows": []}


def test_in_a_bucket(tmp_path: Path, s3: S3) -> None:
    address = f"s3://{BUCKET}/runs?endpoint_override=127.0.0.1:{s3.port}&scheme=http"
    keeps(tiny_config(tmp_path).override({"cluster.storage": address}))
    assert not list(tmp_path.rglob("run-a*"))
