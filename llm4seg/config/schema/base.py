"""`Section`: the frozen, strict pydantic model without defaults that every section derives from."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from llm4seg.config.earlier import current

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
AtLeastTwo = Annotated[int, Field(ge=2)]
Overrides = Annotated[dict[str, Any], BeforeValidator(current)]  # dotted parameter: value


def read_as(parameter: str) -> BeforeValidator:
    """A validator that replaces the renamed values of a parameter (see `earlier.current`)."""
    return BeforeValidator(lambda value: current(value, parameter))


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
