"""requirements.lock holds what pyproject.toml asks for, for the CPU and the CUDA build of torch alike."""

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.import_graph import PACKAGES, ROOT, imported_names, module_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
PINNED = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LINES}
PACKAGE_OF = {"PIL": "pillow", "yaml": "pyyaml", "ruamel": "ruamel.yaml", "skimage": "scikit-image"}


def test_everything_wanted_is_pinned_within_its_limits() -> None:
    for wanted in WANTED:
        version = PINNED.get(canonicalize_name(wanted.name))
        assert version, f"{wanted.name} is not in requirements.lock: make lock"
        assert wanted.specifier.contains(version), f"{wanted} is pinned to {version}: make lock"


def test_one_lock_serves_every_machine() -> None:
    assert not [line for line in LINES if "+" in line or "@" in line]
    assert not [name for name in PINNED if name.startswith(("nvidia", "cuda", "triton"))]


def test_everything_imported_is_asked_for() -> None:
    import sys

    imported = {name.split(".")[0] for file in module_files().values() for name in imported_names(file)}
    packages = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    lines = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["smp"]
    asked = {canonicalize_name(Requirement(line).name) for line in lines}
    assert {canonicalize_name(PACKAGE_OF.get(name, name)) for name in packages} <= asked
