"""dvc.yaml lists the rooms that each stage reaches, and only parameters that exist."""

import yaml

from llm4seg.config import Config
from llm4seg.utils.provenance import MEASURING, TRAINING
from pipelines.stage import ANYWHERE
from tests.import_graph import ROOT, closure, room

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# utils and config decide no result but by parameters; cluster says where a run happens, tracking who is told of it
# A parameter and the stages that read it. What they write decides whether others follow; the report shows some.
READ_BY: list[tuple[str, set[str]]] = [
    ("llm.layers", {"fetch_llm"}),
    ("llm.sources", {"fetch_llm"}),
    ("data.phantom.seed", {"prepare", "report"}),
    ("data.size", {"prepare", "report"}),
    ("split.seed", {"split", "study", "report"}),
    ("split.file", {"prepare", "split", "study", "report"}),
    ("model.cmunext.dims", {"search", "study", "train"}),
    ("model.llm.layer", {"fetch_llm", "search", "study", "train"}),
    ("model.llm.source", {"fetch_llm", "search", "study", "train"}),
    ("optimizer.lr", {"search", "study", "train"}),
    ("training.augment.rotate", {"search", "study", "train"}),
    ("engine.name", {"search", "study", "train"}),
    ("search.epochs", {"search"}),
    ("search.space", {"fetch_llm", "search"}),
    ("search.trials", {"fetch_llm", "search"}),
    ("evaluation.seed", {"evaluate", "study", "report"}),
    ("report.title", {"report"}),
    ("cluster.workers", set()),
    ("cluster.device", set()),
    ("tracking.to", set()),
    ("study.metric", {"study"}),
    ("study.repeats", {"fetch_llm", "study"}),
    ("presets.lora", {"fetch_llm", "study"}),  # arms may name them
]
UNLISTED = {"utils", "config", "cluster", "tracking", "llm4seg", "pipelines"}


def reached(stage: str) -> set[str]:
    """The rooms that a stage's code imports from, however far."""
    return {room(module) for module in closure(f"pipelines.{stage}")} - UNLISTED


def listed(stage: str) -> set[str]:
    """The rooms that dvc.yaml lists for a stage."""
    return {dep.removeprefix("llm4seg/") for dep in STAGES[stage]["deps"] if dep.startswith("llm4seg/")}


def test_each_stage_lists_the_rooms_that_it_reaches_and_its_own_file() -> None:
    wrong = {
        stage: {"missing": sorted(reached(stage) - listed(stage)), "too many": sorted(listed(stage) - reached(stage))}
        for stage in STAGES
        if reached(stage) != listed(stage)
    }
    assert wrong == {}
    code = {stage: [dep for dep in one["deps"] if dep.startswith("pipelines/")] for stage, one in STAGES.items()}
    assert code == {stage: [f"pipelines/{stage}.py"] for stage in STAGES}


def test_paths_that_may_be_anywhere_are_all_that_are_no_outputs() -> None:
    outputs = {
        name.removeprefix("${paths.").removesuffix("}")
        for stage in STAGES.values()
        for output in (*stage["outs"], *stage.get("metrics", ()))
        for name in output
    }
    assert {name for name, _ in Config.load(ROOT / "params.yaml").paths} - outputs == ANYWHERE


def test_names_of_runs_hash_what_dvc_yaml_lists() -> None:
    assert listed("train") == set(TRAINING)
    assert listed("search") == {*TRAINING, "search"}
    assert listed("evaluate") == set(MEASURING)
    assert listed("study") == {*TRAINING, *MEASURING, "study"}


def test_params_exist_and_none_says_where_a_run_happens() -> None:
    values = Config.load(ROOT / "params.yaml").plain()
    for stage, one in STAGES.items():
        for dotted in one["params"]:
            found = values
            for part in dotted.split("."):
                assert part in found, f"stage {stage}: {dotted} is no parameter"
                found = found[part]
        assert not {dotted.split(".")[0] for dotted in one["params"]} & {"cluster", "paths", "tracking"}


def readers(dotted: str) -> set[str]:
    """The stages that list a parameter, a part of it, or what it is a part of."""
    return {
        stage
        for stage, one in STAGES.items()
        if any(f"{dotted}.".startswith(f"{name}.") or f"{name}.".startswith(f"{dotted}.") for name in one["params"])
    }


def test_a_parameter_is_read_by_those_stages_that_it_decides() -> None:
    assert {dotted: readers(dotted) for dotted, _ in READ_BY} == dict(READ_BY)
    assert {dotted.split(".")[0] for dotted, _ in READ_BY} == set(Config.model_fields) - {"paths"}


def test_every_section_that_decides_a_result_is_read_by_a_stage() -> None:
    read = {dotted.split(".")[0] for stage in STAGES.values() for dotted in stage["params"]}
    assert read == set(Config.model_fields) - {"cluster", "paths", "tracking"}


def test_outputs_survive_an_interrupted_stage() -> None:
    outs = [out for stage in STAGES.values() for out in [*stage.get("outs", []), *stage.get("metrics", [])]]
    assert all(options["persist"] for out in outs for options in out.values())
