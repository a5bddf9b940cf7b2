"""`Section`: the frozen, strict pydantic model without defaults that every section derives from."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
SHA256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
AtLeastTwo = Annotated[int, Field(ge=2)]
Overrides = dict[str, Any]  # dotted parameter: value


class Section(BaseModel):
    """A section of params.yaml: nothing missing, nothing extra, nothing changed later."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
