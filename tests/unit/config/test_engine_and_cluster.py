"""Rules of the sections engine and cluster: what a run needs where it happens."""

from typing import Any

import pytest

from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from tests.params import PARAMS


@pytest.fixture(scope="module")
def config() -> Config:
    return Config.load(PARAMS)


def test_nvme_needs_a_folder(config: Config) -> None:
    with pytest.raises(InputError, match=r"cluster.nvme: found null, allowed: a folder"):
        config.override({"engine.zero": 3, "engine.offload": "nvme"})
    config.override({"engine.zero": 3, "engine.offload": "nvme", "cluster.nvme": "/tmp"})


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 2)])
def test_a_micro_batch_of_one_value_a_channel_is_refused(config: Config, batch_size: int, accumulation: int) -> None:
    """BatchNorm's values are those of one micro-batch over all workers, at the coarsest level of the backbone."""
    changes = {"data.size": [16, 16], "training.batch_size": batch_size, "engine.accumulation": accumulation}
    changes |= {"model.bottleneck": "identity"}
    least = 2 * accumulation
    message = rf"training.batch_size: found {batch_size}, allowed: at least {least}, since data.size is \[16, 16\]"
    with pytest.raises(InputError, match=message):
        config.override(changes)
    config.override(changes | {"training.batch_size": least})
    config.override(changes | {"data.size": [16, 32]})
    config.override(changes | {"model.backbone": "segresnet"})


@pytest.mark.parametrize(
    ("name", "zero", "workers", "runs"),
    [
        ("auto", 0, 4, "torch"),
        ("auto", 1, 1, "torch"),
        ("auto", 2, 1, "torch"),
        ("auto", 1, 2, "deepspeed"),
        ("auto", 2, 8, "deepspeed"),
        ("auto", 3, 1, "deepspeed"),
        ("torch", 1, 8, "torch"),
        ("deepspeed", 0, 1, "deepspeed"),
    ],
)
def test_auto_is_deepspeed_where_zero_has_something_to_do(
    config: Config, name: str, zero: int, workers: int, runs: str
) -> None:
    section = config.override({"engine.name": name, "engine.zero": zero}).engine
    assert section.resolve(workers) == section.model_copy(update={"name": runs})


def test_fp16_is_plain_torchs(config: Config) -> None:
    """DeepSpeed would not scale the loss of autocast."""
    fp16 = {"engine.precision": "fp16"}
    assert config.override(fp16 | {"engine.zero": 2}).engine.resolve(8).name == "torch"
    config.override(fp16 | {"engine.name": "torch", "engine.zero": 3})
    for changes in ({"engine.name": "deepspeed"}, {"engine.zero": 3}):
        with pytest.raises(InputError, match=r"precision: found fp16, allowed with name: .*: fp32, tf32, bf16"):
            config.override(fp16 | changes)


def test_the_digest_keeps_the_word_auto(config: Config) -> None:
    digests = {config.override({"engine.name": name}).digest("engine") for name in ("auto", "deepspeed", "torch")}
    assert len(digests) == 3
    assert config.engine.name == "auto"


def test_credentials_have_no_place_in_the_storage_and_are_not_shown(config: Config) -> None:
    with pytest.raises(InputError, match=r"cluster: storage: found credentials") as raised:
        config.override({"cluster.storage": "s3://AKIA:hidden@bucket/runs"})
    assert "hidden" not in str(raised.value)
    assert config.override({"cluster.storage": "s3://bucket/a@b"}).cluster.storage == "s3://bucket/a@b"


def test_workers_of_a_range_may_have_unequal_shares(config: Config) -> None:
    assert config.override({"cluster.workers": [1, 3]}).cluster.workers == (1, 3)
    assert config.override({"cluster.workers": 2}).cluster.workers == (2, 2)


def test_a_nodes_cache_is_at_the_same_place_wherever_a_worker_starts(config: Config) -> None:
    pull = {"cluster.data": "pull", "cluster.storage": "s3://bucket/runs"}
    config.override(pull | {"cluster.node_cache": "~/cache"})
    with pytest.raises(InputError, match=r"node_cache: found cache, allowed: an absolute path, or one from ~"):
        config.override(pull | {"cluster.node_cache": "cache"})


@pytest.mark.parametrize(
    "changes",
    [
        {"training.init_from": "model"},
        {"study.repeats": 1, "study.folds": [0]},
        {"study.repeats": 1, "study.other_data": "x"},
        {"study.repeats": 1, "study.data": ["x", "y"]},
    ],
)
def test_nodes_that_share_nothing_have_only_what_dvc_knows(config: Config, changes: dict[str, Any]) -> None:
    pull = {"cluster.data": "pull", "cluster.storage": "s3://bucket/runs"}
    with pytest.raises(InputError, match=r"found .*, allowed with cluster.data: pull: none"):
        config.override(pull | changes)
