"""requirements.lock holds what pyproject.toml asks for, for the CPU and the CUDA build of torch alike."""

import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from llm4seg.utils.extras import EXTRA_OF
from tests.import_graph import PACKAGES, ROOT, imported_names, module_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
IN_LOCK = EXTRAS["all"][0].extras  # beside `test`
WANTED = [Requirement(line) for line in PROJECT["dependencies"]]
WANTED += [one for name in (*IN_LOCK, "test") for one in EXTRAS[name]]
LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
PINNED = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LINES}
PACKAGE_OF = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "ruamel": "ruamel.yaml",
    "skimage": "scikit-image",
    "ignite": "pytorch-ignite",
    "mlflow": "mlflow-skinny",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
}


def test_everything_wanted_is_pinned_within_its_limits() -> None:
    for wanted in WANTED:
        version = PINNED.get(canonicalize_name(wanted.name))
        assert version, f"{wanted.name} is not in requirements.lock: make lock"
        assert wanted.specifier.contains(version), f"{wanted} is pinned to {version}: make lock"


def test_pip_does_not_try_old_versions_of_what_limits_botocore() -> None:
    """Each aiobotocore takes few versions of botocore: without a lower limit pip holds on to the newest boto3, and
    downloads all of them before it takes an older one.
    """
    for extra in ("dvc", "s3"):
        (wanted,) = (one for one in EXTRAS[extra] if one.name == "aiobotocore")
        pinned = Version(PINNED["aiobotocore"])
        assert not wanted.specifier.contains(f"{pinned.major}.{pinned.minor - 1}.9"), f"{extra}: raise {wanted}"


def test_one_lock_serves_every_machine() -> None:
    assert not [line for line in LINES if "+" in line or "@" in line]
    assert not [name for name in PINNED if name.startswith(("nvidia", "cuda", "triton"))]


def test_everything_imported_is_asked_for() -> None:
    import sys

    imported = {name.split(".")[0] for file in module_files().values() for name in imported_names(file)}
    packages = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    asked = {canonicalize_name(one.name) for name, extra in EXTRAS.items() if name != "test" for one in extra}
    asked |= {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert {canonicalize_name(PACKAGE_OF.get(name, name)) for name in packages} <= asked


def test_an_error_names_the_extra_that_has_the_package() -> None:
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    for module, extra in EXTRA_OF.items():
        package = canonicalize_name(PACKAGE_OF.get(module, module))
        assert package in {canonicalize_name(one.name) for one in EXTRAS[extra]}
        assert package not in core
    imported = EXTRAS.keys() - {"all", "docs", "test"}
    of_extras = {canonicalize_name(one.name) for name in imported for one in EXTRAS[name]}
    named = {canonicalize_name(PACKAGE_OF.get(module, module)) for module in EXTRA_OF}
    assert of_extras - named == {"dvc-s3", "aiobotocore"}  # which DVC and s3fs import, not this project
    assert set(EXTRAS) - {"all", "docs", "smp", "test"} == IN_LOCK


def test_the_docs_name_every_extra() -> None:
    lines = (ROOT / "docs" / "package.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert EXTRAS.keys() - {"test"} <= rows.keys()
    assert set(rows["all"].partition("what `make")[0].split("`")[3::2]) == IN_LOCK
