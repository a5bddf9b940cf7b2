"""The nodes of a cluster run this project's code, whatever is installed there."""

from pathlib import Path

import pytest
import ray

from llm4seg.cluster.session import ray_session
from llm4seg.config import Config
from tests.cluster import nodes


def test_every_cluster_of_a_process_gets_the_code(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one too: Ray puts its own name of what it has sent in the place of a path that it is given."""

    def on_a_node() -> list[str]:
        import sys

        return [folder for folder in sys.path if (Path(folder) / "llm4seg" / "cluster").is_dir()]

    for name in ("first", "second"):
        with nodes(tmp_path / name, monkeypatch) as cluster:
            cluster.add("node")
            with ray_session(config.override({"cluster.address": cluster.address}).cluster):
                found = ray.get(ray.remote(on_a_node).remote(), timeout=120)
        assert any("runtime_resources/py_modules_files" in folder for folder in found)
