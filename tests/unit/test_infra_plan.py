"""What a cluster's runs take and cost, worked out by hand."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.__main__ import main
from infra.planning.fleet import fleet
from infra.planning.prices import read_prices
from infra.planning.work import Work, gpu_hours, guessed_epoch, hours, work
from llm4seg.config import Config
from tests.code_map import ROOT

PRICES = read_prices()
STUDY = {"study.repeats": 2, "study.arms": {"a": {"preset": "none"}, "b": {"preset": "mlp", "training.epochs": 10}}}


@pytest.fixture
def config() -> Config:
    return Config.load(ROOT / "params.yaml")


def test_what_params_ask_for(config: Config) -> None:
    asked = config.override({"search.trials": 20, "search.epochs": 6, "cluster.trials": 3, "training.epochs": 30})
    asked = asked.override(STUDY | {"study.references": ["a"]})
    assert list(work(asked, 4)) == [
        Work("search, at most", 20, 120, 3),
        Work("train", 1, 30, 1),
        Work("study", 4, 2 * (30 + 10), 4),
    ]
    assert list(work(config, 4)) == [Work("train", 1, config.training.epochs, 1)]
    capped = asked.override({"search.total_epochs": 50, "cluster.workers": 2})
    assert [(one.epochs, one.at_once) for one in work(capped, 4)] == [(50, 2), (30, 1), (80, 2)]


def test_hours_by_hand() -> None:
    """Six runs of ten epochs of 60 s, two at a time, on two workers each, with a minute to start."""
    one = Work("study", 6, 60, 2)
    assert gpu_hours(one, 60, 60, 2) == pytest.approx((60 * 60 + 6 * 2 * 60) / 3600)
    assert hours(one, 60, 60, 2) == pytest.approx((3 * 10 * 60 / 2 + 3 * 60) / 3600)
    assert guessed_epoch(1000, (256, 256), 250, 2.0) == pytest.approx(2.0)
    assert guessed_epoch(1000, (64, 64), 250, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("file", "expected"), [("infra/aws.yaml", "g6.xlarge"), ("infra/gcp.yaml", "g2-standard-4")])
def test_the_files_of_this_project(file: str, expected: str) -> None:
    lent = fleet(str(ROOT / file), PRICES, None)
    assert [(one.machine and one.machine.name, one.spot) for one in lent.workers] == [
        (expected, True),
        (expected, False),
    ]
    assert lent.head is not None
    assert lent.head_disk_gb == 100


def test_kubernetes_and_machines_of_ones_own(tmp_path: Path) -> None:
    pods = fleet(str(ROOT / "infra/kuberay/cluster.yaml"), PRICES, None)
    assert [(one.machine and one.machine.name, one.count, one.spot) for one in pods.workers] == [
        ("g6.2xlarge", 4, None)
    ]
    assert fleet(str(ROOT / "infra/onprem.yaml"), PRICES, None).most == 2


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["plan", *words, "--params", str(ROOT / "params.yaml")])
    return capsys.readouterr().out


def test_the_command_by_hand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """36 epochs of 100 s and a minute to start on one GPU of one node; and what a year-old account must ask for."""
    monkeypatch.setenv("COLUMNS", "150")
    said = plan(capsys, str(ROOT / "infra/aws.yaml"), "--epoch-seconds", "100")
    lasts = (36 * 100 + 60) / 3600
    disks = 0.08 * 100 / 730
    spot = lasts * (0.35 + disks + 0.202 + disks)
    assert f"{lasts:.2f}" in said
    assert f"{spot:.2f}" in said
    assert "Quota for gpu-spot: 16 vCPU of L-3819A6DF" in said
    assert "Quota for gpu-on-demand: 16 vCPU of L-DB2E81BA" in said
    assert "estimates" in said
    assert "Time is a guess" not in said


def test_bad_input_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file: dict[str, Any] = yaml.safe_load((ROOT / "infra/aws.yaml").read_text())
    file["available_node_types"]["gpu-spot"]["node_config"]["InstanceType"] = "x9.huge"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(file))
    for words, expected in {
        (
            str(tmp_path / "own.yaml"),
        ): "available_node_types.gpu-spot.node_config.InstanceType: found 'x9.huge', allowed: ",
        (str(ROOT / "infra/aws.yaml"), "--instance-type", "nope"): "--instance-type: found 'nope', allowed: ",
        (str(ROOT / "infra/aws.yaml"), "--epoch-seconds", "0"): "--epoch-seconds: found 0, allowed: more than 0",
        ("http://127.0.0.1:8265",): "a cluster that runs already has no plan",
    }.items():
        with pytest.raises(SystemExit) as ended:
            plan(capsys, *words)
        assert expected in str(ended.value)
