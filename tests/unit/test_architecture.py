"""The arrows of the design: a file imports from its own or a lower layer, and heavy packages stay at home."""

import graphlib

import pytest

from tests.import_graph import ROOT, imported_names, imports, module_files

LAYERS = (
    {"sections", "config", "dotted", "run", "errors", "files", "fetch", "provenance"}
    | {"collectives", "sockets", "device"},
    # trained: a model on disk is weights, a section and a layer of the store, which is all it imports
    {"llm", "data", "models", "trained", "losses", "metrics", "optim", "baseline", "statistics"},
    {"engines"},
    {"train", "evaluate", "predict", "report", "checkpoint", "study"},
    {"cluster"},
)
ABOVE = len(LAYERS)  # pipelines and infra

HOME_OF = {
    "ray": ("llm4seg.cluster", "infra"),
    "deepspeed": ("llm4seg.training.engines",),
    "dvc": ("llm4seg.cluster.data_sync", "infra.jobs"),
    "dvc_data": ("llm4seg.cluster.data_sync",),
    "transformers": ("llm4seg.llm", "llm4seg.models"),
    "yaml": ("llm4seg.config", "infra"),
}
MODULES = sorted(set(module_files()) - {"llm4seg"})


def layer(module: str) -> int:
    package, _, rest = module.partition(".")
    if package != "llm4seg":
        return ABOVE
    return next((number for number, names in enumerate(LAYERS) if rest.split(".")[0] in names), -1)


@pytest.mark.parametrize("module", MODULES)
def test_a_file_imports_only_from_its_own_or_a_lower_layer(module: str) -> None:
    assert layer(module) >= 0, f"{module} is in no layer: name it in LAYERS above"
    upward = {name for name in imports(module_files()[module]) - {"llm4seg"} if layer(name) > layer(module)}
    assert not upward, f"{module} (layer {layer(module)}) imports from above: {sorted(upward)}"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_stay_at_home(module: str) -> None:
    used = {name.split(".")[0] for name in imported_names(module_files()[module])} & set(HOME_OF)
    astray = {name for name in used if not any(f"{module}.".startswith(f"{home}.") for home in HOME_OF[name])}
    assert not astray, f"{module} imports {sorted(astray)}; allowed: {[HOME_OF[name] for name in sorted(astray)]}"


def test_no_cycles() -> None:
    graph = {module: imports(file) - {module} for module, file in module_files().items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the cycle


def test_only_stages_are_above_the_library() -> None:
    readers = {module for module in MODULES if layer(module) < ABOVE}
    assert not {name for module in readers for name in imports(module_files()[module]) if layer(name) == ABOVE}


def test_the_readmes_map_names_every_file() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files = [file for package in ("infra", "llm4seg", "pipelines") for file in (ROOT / package).rglob("*.py")]
    missing = [str(file.relative_to(ROOT)) for file in files if f"  {file.name} " not in text]
    assert [name for name in missing if not name.endswith("__init__.py")] == []
