"""`Section`: the frozen, strict pydantic model without defaults that every section derives from."""

from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from llm4seg.config.earlier import current, moved

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
AtLeastTwo = Annotated[int, Field(ge=2)]
# the name of an LLM of `llm.sources`: of a folder, and a part of dotted names, so without dots
LLMName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_+-]*$")]
DEFAULT_LLM = "default"  # the name of the LLM of `llm.source`
# validation context of overrides that may be meant for other values than these: no checks of what must agree across
# sections, nor of what model.llm's own values must agree on
SECTIONS_ALONE = "sections alone"
Overrides = Annotated[dict[str, Any], BeforeValidator(lambda values: moved(current(values)))]  # dotted parameter: value


def read_as(parameter: str) -> BeforeValidator:
    """A validator that replaces the renamed values of a parameter (see `earlier.current`)."""
    return BeforeValidator(lambda value: current(value, parameter))


def is_inside(path: str) -> bool:
    """Whether a path is relative and stays below the folder that it is relative to."""
    parts = PurePath(path).parts
    return bool(parts) and not PurePath(path).is_absolute() and ".." not in parts and "\0" not in path


class Section(BaseModel):
    """A section of params.yaml: nothing missing, nothing extra, nothing changed later."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        """No path, address or name may hold a NUL: the system's calls refuse it, hours later."""
        if isinstance(value, str | Path) and "\0" in str(value):
            raise ValueError("must not hold a NUL")
        return value
