"""What a cluster's runs take and cost, worked out by hand, with the table's own prices, since those change."""

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.__main__ import main
from infra.commands.plan import price_notes
from infra.planning.estimate import Line, Quota, cost, gpus, lines, quotas
from infra.planning.fleet import SELECTOR, Fleet, Workers, has_gpu_nodes, read_fleet
from infra.planning.prices import FILE, MachineType, read_prices
from infra.planning.workload import Workload, guessed_epoch, workloads
from llm4seg.config import Config
from llm4seg.data.split import read_split
from llm4seg.utils.errors import InputError
from tests.import_graph import ROOT

PRICES = read_prices()
AWS, PODS = (str(ROOT / "infra" / file) for file in ("aws.yaml", "kuberay/cluster.yaml"))
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


def test_an_epoch_is_guessed_from_the_images_and_their_size(config: Config) -> None:
    """Small images in batches of four take as long as their steps, large ones as long as their pixels."""
    images = len(read_split(config.paths.split).train)
    steps = -(-images // 4)
    assert guessed_epoch(config, PRICES, 2.0) == pytest.approx(steps * PRICES.shortest_step_ms / 1000)  # 32 x 32
    large = config.override({"data.size": [1024, 512], "model.llm.max_tokens": 32768})
    assert guessed_epoch(large, PRICES, 2.0) == pytest.approx(images * 8 / (2 * PRICES.images_a_second))
    with pytest.raises(InputError, match="run `dvc repro split`, or give --epoch-seconds"):
        guessed_epoch(config.override({"paths.split": "/nowhere.json"}), PRICES, 1.0)


def test_costs_by_hand(params: Config) -> None:
    """Four workers of a run on two nodes with two GPUs each: ten epochs of 360 s are a quarter of an hour."""
    machine = MachineType("two", 8, on_demand=2.0, spot=1.0, quota="aws-g", gpus=2)
    workers = Workers("gpu", machine, 4, 8, True)
    fleet = Fleet(MachineType("head", "aws", 4, 0.4, 0.1, "aws-standard"), (workers,), 4, idle_minutes=20)
    asked = params.override({"cluster.workers": 4, "training.epochs": 10})
    train, besides = lines(asked, PRICES, fleet, (workers,), 360)
    start, nodes_start = PRICES.start_seconds / 3600, PRICES.node_start_minutes / 60
    assert (train.nodes, train.hours, train.gpu_hours) == pytest.approx((2, 0.25 + start, 1 + 4 * start))
    assert (besides.nodes, besides.hours) == pytest.approx((2, nodes_start + 1 / 3))
    assert besides.gpu_hours == pytest.approx(4 * (nodes_start + 1 / 3))
    two_hours = [Line("a", 1, 1, 4.0, 1.5, 2), Line("b", 0, 0, 0.5, 0.5, 1)]  # 3.5 hours of nodes
    for spot, price in ((True, 1.0), (False, 2.0)):
        assert cost(two_hours, fleet, machine, spot) == pytest.approx((3.5 * price, 2 * 0.4))


def test_the_machines_of_a_file() -> None:
    fleet = read_fleet(AWS, PRICES, None)
    ((machine, (spot, on_demand)),) = fleet.machines().items()
    assert machine is not None
    assert machine.name == "g6.xlarge"
    assert (spot.spot, on_demand.spot) == (True, False)
    assert fleet.head is not None
    assert (fleet.most, fleet.idle_minutes) == (4, 10)


def test_quotas_by_hand() -> None:
    """Four nodes with four vCPUs and a GPU each: AWS counts the vCPUs."""
    names = PRICES.quotas
    assert list(quotas(PRICES, read_fleet(AWS, PRICES, None))) == [
        Quota("head", 4, "vCPU", names["aws-standard"]["on_demand"]),
        Quota("gpu-spot", 16, "vCPU", names["aws-g"]["spot"]),
        Quota("gpu-on-demand", 16, "vCPU", names["aws-g"]["on_demand"]),
    ]
    assert list(quotas(PRICES, read_fleet(AWS, PRICES, "p4d.24xlarge")))[1].amount == 4 * 96


def test_pods_go_by_their_node_selector(tmp_path: Path) -> None:
    (workers,) = read_fleet(PODS, PRICES, None).workers
    assert workers.machine is not None
    assert (workers.machine.name, workers.count, workers.spot) == ("g6.2xlarge", 4, False)
    text = Path(PODS).read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if f"{SELECTOR}:" in line)
    spot = _written(tmp_path, text.replace(line, line.partition("node.")[0] + "karpenter.sh/capacity-type: spot"))
    with pytest.raises(InputError, match=r"workerGroupSpecs\.0\..*instance-type: found none.* or --instance-type"):
        read_fleet(spot, PRICES, None)
    (workers,) = read_fleet(spot, PRICES, "g6.12xlarge").workers
    assert workers.machine is not None
    assert (workers.machine.name, workers.spot) == ("g6.12xlarge", True)


def test_pods_fill_nodes() -> None:
    """Four pods with a GPU each: one node with four GPUs, or half of one with eight, or four nodes."""
    for name, nodes in (("g6.12xlarge", 1), ("g6.48xlarge", 1), ("g6.xlarge", 4)):
        fleet = read_fleet(PODS, PRICES, name)
        (workers,) = fleet.workers
        assert (workers.count, workers.gpus, gpus(fleet, fleet.workers)) == (nodes, 4, 4)
    with pytest.raises(InputError, match=r"found m7i\.xlarge with 0 GPUs, allowed: 1 or more, as pods ask"):
        read_fleet(PODS, PRICES, "m7i.xlarge")


def test_workers_without_a_gpu_are_left_out(tmp_path: Path) -> None:
    file: dict[str, Any] = yaml.safe_load(Path(AWS).read_text(encoding="utf-8"))
    kinds = file["available_node_types"]
    kinds["cpu"] = kinds["head"] | {"max_workers": 2}
    fleet = read_fleet(_written(tmp_path, yaml.safe_dump(file)), PRICES, None)
    assert [machine and machine.name for machine in fleet.machines()] == ["g6.xlarge"]
    assert gpus(fleet, next(iter(fleet.machines().values()))) == 4  # 4 + 4, of which max_workers lets four be


def plan(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["plan", *words, "--params", str(ROOT / "params.yaml")])
    return capsys.readouterr().out


def test_the_command_by_hand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 100 s on one GPU of one node: the same with --dry-run, and every figure is an estimate."""
    monkeypatch.setenv("COLUMNS", "120")
    output = plan(capsys, AWS, "--epoch-seconds", "100")
    assert plan(capsys, AWS, "--epoch-seconds", "100", "--dry-run") == output
    epochs = Config.load(ROOT / "params.yaml").training.epochs
    run, besides = (epochs * 100 + PRICES.start_seconds) / 3600, (PRICES.node_start_minutes + 10) / 60
    assert re.search(rf"train +{run:.2f} +{run:.2f} +1 +1 +{epochs}\n", output)
    g6 = PRICES.types["g6.xlarge"]
    head = (run + besides) * PRICES.types["m7i.xlarge"].on_demand
    for market, price in (("spot", g6.spot), ("on demand", g6.on_demand)):
        money = (run + besides) * price
        line = f"workers {market}: {money + head:.2f} (workers {money:.2f}, head {head:.2f})\n"
        assert line in output
    assert output.index("GPU hours") < output.index("estimated USD")
    assert re.search(r"gpu-spot +16 vCPUs +L-3819A6DF", output)
    assert output.count("estimated ") >= 2
    assert f"list prices of {PRICES.date} in us-east-1" in output
    assert "Time is a guess" not in output


def test_ones_own_machines_cost_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = plan(capsys, str(ROOT / "infra/onprem.yaml"), "--epoch-seconds", "100")
    assert "nothing to pay here" in output
    assert "USD" not in output
    assert "Quota" not in output


def _written(folder: Path, text: str) -> str:
    (folder / "own.yaml").write_text(text, encoding="utf-8")
    return str(folder / "own.yaml")


def test_bad_input_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file: dict[str, Any] = yaml.safe_load(Path(AWS).read_text(encoding="utf-8"))
    file["available_node_types"]["gpu-spot"]["node_config"]["InstanceType"] = "x9.huge"
    own = _written(tmp_path, yaml.safe_dump(file))
    field = "available_node_types.gpu-spot.node_config.InstanceType"
    for words, expected in {
        (own,): f"{own}: {field}: found 'x9.huge', allowed: m7i.xlarge, ",
        (AWS, "--instance-type", "nope"): "--instance-type: found 'nope', allowed: ",
        (AWS, "--instance-type", "m7i.xlarge", "--epoch-seconds", "9"): "cluster.workers: found 1, allowed: up to 0",
        (AWS, "--epoch-seconds", "0"): "--epoch-seconds: found 0, allowed: more than 0",
        ("http://127.0.0.1:8265",): "a cluster that runs already has no plan",
        (str(ROOT / "dvc.yaml"),): "provider.type: found None, allowed: aws, local; other clouds",
    }.items():
        with pytest.raises(SystemExit) as ended:
            plan(capsys, *words)
        assert expected in str(ended.value)
        assert "\n" not in str(ended.value)


def test_the_table_is_whole() -> None:
    """Every machine has a quota, and those with a GPU say what it is."""
    for one in PRICES.types.values():
        assert {"unit", "on_demand", "spot"} == set(PRICES.quotas[one.quota])
        assert 0 < one.spot < one.on_demand
        assert bool(one.gpus) == bool(one.gpu) == (one.gpu_gib > 0)


@pytest.mark.parametrize(("days", "warned"), [(0, False), (90, False), (91, True)])
def test_old_prices_are_warned_of(days: int, warned: bool) -> None:
    fleet = read_fleet(AWS, PRICES, None)
    notes = list(price_notes(PRICES, fleet, PRICES.date + datetime.timedelta(days)))
    assert [note for note in notes if f"those prices are {days} days old" in note and "--prices FILE" in note] == (
        [notes[1]] if warned else []
    )


def test_a_table_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    table["date"] = datetime.date.today()
    table["types"]["g6.xlarge"] |= {"spot": 100.0, "on_demand": 200.0}
    own = _written(tmp_path, yaml.safe_dump(table))
    output = plan(capsys, AWS, "--epoch-seconds", "100", "--prices", own)
    assert f"own.yaml, list prices of {table['date']}" in output
    assert "WARNING" not in output
    usd = [float(found) for found in re.findall(r"\(workers (\d+\.\d+),", output)]
    assert usd[1] == pytest.approx(2 * usd[0], abs=0.02)
    assert usd[0] > 100


@pytest.mark.parametrize(
    ("dotted", "value", "message"),
    [
        ("date", "soon", r"date: found 'soon', allowed: the day"),
        ("date", None, r"date: found 'none', allowed: as in"),
        ("disks", 3, r"disks: found 3, allowed: as in"),
        ("types.m7i\\.xlarge.quota", None, r"types\.m7i\.xlarge\.quota: found 'none', allowed"),
        ("types.m7i\\.xlarge.price", 3, r"types\.m7i\.xlarge\.price: found 3, allowed"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, dotted: str, value: Any, message: str) -> None:
    table: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    *above, name = re.split(r"(?<!\\)\.", dotted)
    place = table
    for part in above:
        place = place[part.replace("\\", "")]
    place[name] = value
    if value is None:
        del place[name]
    own = _written(tmp_path, yaml.safe_dump(table))
    with pytest.raises(InputError, match=f"^{re.escape(own)}: {message}"):
        read_prices(Path(own))


@pytest.mark.parametrize("file", ["aws.yaml", "kuberay/cluster.yaml", "kuberay/job.yaml"])
def test_a_job_is_told_that_nodes_with_gpus_come_when_asked_for(file: str) -> None:
    """Or it would train on the head, since there are no others before."""
    assert has_gpu_nodes(str(ROOT / "infra" / file), PRICES)


def test_gpus_that_are_there_already_need_not_be_asked_for(tmp_path: Path) -> None:
    assert not has_gpu_nodes("http://127.0.0.1:8265", PRICES)
    assert not has_gpu_nodes(str(ROOT / "infra/onprem.yaml"), PRICES)
    of_cpus = tmp_path / "aws.yaml"
    of_cpus.write_text(Path(AWS).read_text().replace("g6.xlarge", "m7i.large"))
    assert not has_gpu_nodes(str(of_cpus), PRICES)
