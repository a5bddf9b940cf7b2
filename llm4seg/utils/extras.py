"""Optional packages: which extra of this package installs each of them, and one line where it is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from llm4seg.utils.errors import InputError

# module: the extra in pyproject.toml that installs it (a test compares)
EXTRA_OF = {
    "ray": "cluster",
    "deepspeed": "cluster",
    "optuna": "cluster",
    "boto3": "cluster",
    "dvc": "dvc",
    "s3fs": "s3",
    "botocore": "s3",
    "SimpleITK": "dicom",
    "pydicom": "dicom",
    "highdicom": "dicom",
    "skimage": "dicom",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "export",
    "fire": "export",
    "ignite": "export",
    "segmentation_models_pytorch": "smp",
    "tensorboard": "track",
    "mlflow": "track",
    "wandb": "track",
}


def install(module: str) -> str:
    """The command that installs a module of an extra."""
    return f"pip install 'llm4seg[{EXTRA_OF[module]}]'"


def installed(module: str) -> bool:
    """Whether a module can be found; it is not imported."""
    return find_spec(module) is not None


def require(module: str, what: str) -> None:
    """Raise InputError where a module of an extra is missing; `what`: what needs it."""
    if not installed(module):
        raise InputError(f"{what} needs {module}, which is not installed: {install(module)}")


@contextmanager
def naming_extras() -> Iterator[None]:
    """Context manager: a failed import of a module of an extra becomes InputError with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_OF:
            raise
        raise InputError(f"this needs {module}, which is not installed: {install(module)}") from None
