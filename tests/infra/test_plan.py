"""Estimates of a cluster's work: by hand, through the command, and whether a job is told of nodes that come."""

import datetime
import re
from pathlib import Path

import pytest

from infra.__main__ import main
from infra.launchers.gpu_nodes import has_gpu_nodes
from infra.planning.prices import read_prices
from infra.planning.workload import Workload, workloads
from llm4seg.config import Config
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

STUDY = {
    "study.repeats": 2,
    "study.arms": {"a": {"preset": "none"}, "b": {"preset": "mlp", "training.epochs": 10}},
    "study.references": ["a"],
}


@pytest.fixture
def params() -> Config:
    return Config.load(ROOT / "params.yaml").override({"training.epochs": 30})


def test_what_params_ask_for(params: Config) -> None:
    assert list(workloads(params, 4)) == [Workload("train", 1, 30, 1, 1)]
    search = {"search.trials": 20, "search.epochs": 6, "cluster.trials": 3}
    asked = params.override(search | STUDY)
    assert list(workloads(asked, 4)) == [
        Workload("search, at most", 20, 120, 3, 3),
        Workload("train", 1, 30, 1, 1),
        Workload("study", 4, 2 * (30 + 10), 4, 4),
    ]
    capped = asked.override({"search.total_epochs": 50, "search.warm_start": True, "cluster.workers": 2})
    assert list(workloads(capped, 5)) == [
        Workload("search: the CNN alone", 1, 30, 1, 2),
        Workload("search, at most", 20, 50, 2, 4),
        Workload("train", 1, 30, 1, 2),
        Workload("study", 4, 80, 2, 4),
    ]
    folds = asked.override({"study.folds": [0, 1, 2]})
    assert list(workloads(folds, 4))[-1] == Workload("study", 12, 6 * (30 + 10), 4, 4)


def test_trials_that_share_a_gpu(params: Config) -> None:
    """Twelve trials of ten epochs, four at a time on two GPUs: each goes half as fast."""
    halves = {"search.trials": 12, "search.epochs": 10, "cluster.trials": 4, "cluster.gpus_per_worker": 0.5}
    found, *_ = workloads(params.override(halves), 4)
    assert found == Workload("search, at most", 12, 120, 4, 2)
    assert found.hours(3600, 0) == pytest.approx(60)
    assert found.gpu_hours(3600, 0) == pytest.approx(120)


def test_too_few_gpus_are_named(params: Config) -> None:
    with pytest.raises(InputError, match=r"cluster\.workers: found 4, allowed: up to 3, the cluster's GPUs"):
        list(workloads(params.override({"cluster.workers": 4}), 3))
    (elastic,) = workloads(params.override({"cluster.workers": [1, 4]}), 3)
    assert elastic.gpus == 3
    with pytest.raises(InputError, match=r"cluster\.device: found cpu"):
        list(workloads(params.override({"cluster.device": "cpu"}), 4))


def test_hours_by_hand() -> None:
    """Six runs of ten epochs of 60 s, two at a time, on two GPUs each, with a minute to start."""
    one = Workload("study", 6, 60, 2, 4)
    assert one.gpu_hours(60, 60) == pytest.approx((60 * 60 + 6 * 2 * 60) / 3600)
    assert one.hours(60, 60) == pytest.approx((3 * 10 * 60 / 2 + 3 * 60) / 3600)


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["plan", *words, "--params", str(ROOT / "params.yaml")])
    return capsys.readouterr().out


def test_the_command_by_hand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Epochs of 100 s on one of four GPUs: the same with --dry-run, and every figure is an estimate."""
    monkeypatch.setenv("COLUMNS", "120")
    words = ("--epoch-seconds", "100", "--gpus", "4")
    table = tmp_path / "prices.yaml"
    table.write_text(f"date: {datetime.date.today()}\ngpus: {{B200: {{on_demand: 2, spot: 1}}}}\n")
    priced = (*words, "--gpu", "B200", "--prices", str(table))
    output = plan(capsys, *priced)
    assert plan(capsys, *priced, "--dry-run") == output
    epochs = Config.load(ROOT / "params.yaml").training.epochs
    hours = (epochs * 100 + 60) / 3600
    assert re.search(rf"train +1 +{epochs} +{hours:.2f} +{hours:.2f}\n", output)
    assert f"USD, B200 on demand: {2 * hours:.2f} of GPUs in use, {8 * hours:.2f} where all stay to the end" in output
    assert f"USD, B200 spot: {hours:.2f} of GPUs in use, {4 * hours:.2f} where all stay to the end" in output
    assert "WARNING" not in output
    assert "USD" not in plan(capsys, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epoch-seconds", "0"), "--epoch-seconds: found 0, allowed: more than 0"),
        (("--epoch-seconds", "9", "--gpus", "0"), "--gpus: found 0, allowed: 1 or more"),
        ((), "required: --epoch-seconds"),
        (("--epoch-seconds", "9", "--gpu", "K80"), "--gpu: found K80, allowed: T4, A10G, L4, L40S, A100, H100"),
        (("--epoch-seconds", "9", "--gpu", "L4", "--prices", "none.yaml"), "none.yaml"),
    ],
)
def test_bad_input_is_named(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        plan(capsys, *words)
    assert message in f"{ended.value} {capsys.readouterr().err}"


def test_prices_of_the_table_are_dated_and_warn_when_they_are_old() -> None:
    prices = read_prices()
    assert prices.warning(prices.date + datetime.timedelta(days=90)) is None
    assert "those prices are 91 days old" in str(prices.warning(prices.date + datetime.timedelta(days=91)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("gpus: {L4: {on_demand: 1, spot: 1}}", "date: found None, allowed: the day of the prices"),
        ("date: 2026-01-31", "gpus: found None, allowed: kinds of GPUs"),
        ("{date: 2026-01-31, gpus: {L4: {on_demand: 1}}}", "gpus.L4.spot: found None, allowed: USD an hour"),
        ("{date: 2026-01-31, gpus: {L4: {on_demand: -1, spot: 1}}}", "gpus.L4.on_demand: found -1, allowed: USD"),
        ("{date: 2026-01-31, gpus: {L4: {on_demand: .nan, spot: 1}}}", "gpus.L4.on_demand: found nan, allowed: USD"),
        ("{date: 2026-01-31, gpus: {L4: {on_demand: .inf, spot: 1}}}", "gpus.L4.on_demand: found inf, allowed: USD"),
        ("{date: 2026-01-31, gpus: {L4: 3}}", "gpus.L4.on_demand: found None, allowed: USD"),
    ],
)
def test_a_table_of_ones_own_is_checked(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "prices.yaml").write_text(table)
    with pytest.raises(InputError, match=rf"prices\.yaml: {re.escape(message)}"):
        read_prices(tmp_path / "prices.yaml")


def test_a_kind_that_yaml_reads_as_a_number_and_notes_beside_its_prices(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("{date: 2026-01-31, gpus: {4090: {on_demand: 2, spot: 1, from: a shop}}}")
    prices = read_prices(tmp_path / "prices.yaml")
    assert prices.of("4090") == {"on_demand": 2, "spot": 1}
    with pytest.raises(InputError, match="--gpu: found L4, allowed: 4090"):
        prices.of("L4")


@pytest.mark.parametrize("file", ["aws.yaml", "kuberay/cluster.yaml"])
def test_a_job_is_told_that_nodes_with_gpus_come_when_asked_for(file: str) -> None:
    """Or it would train on the head, since there are no others before."""
    assert has_gpu_nodes(str(ROOT / "infra" / file))


def test_gpus_that_are_there_already_need_not_be_asked_for(tmp_path: Path) -> None:
    assert not has_gpu_nodes("http://127.0.0.1:8265")
    assert not has_gpu_nodes(str(ROOT / "infra/onprem.yaml"))
    of_cpus = tmp_path / "aws.yaml"
    of_cpus.write_text((ROOT / "infra/aws.yaml").read_text().replace("g6.xlarge", "m7i.large"))
    assert not has_gpu_nodes(str(of_cpus))
