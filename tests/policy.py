"""AWS's evaluation of policies, as far as this project's policies need it; no library does that."""

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

Context = Mapping[str, str | Sequence[str]]


def allows(policies: Sequence[Mapping[str, Any]], action: str, resource: str, **context: str | list[str]) -> bool:
    """Whether a statement allows an action on a resource. A key of the context has `__` for `:` and `_` for `-`."""
    keys = {name.replace("__", ":").replace("_", "-"): value for name, value in context.items()}
    statements = [statement for policy in policies for statement in policy["Statement"]]
    assert all(statement["Effect"] == "Allow" for statement in statements), "this knows nothing of Deny"
    return any(_matches(statement, action, resource, keys) for statement in statements)


def _matches(statement: Mapping[str, Any], action: str, resource: str, context: Context) -> bool:
    return (
        any(fnmatchcase(action.lower(), allowed.lower()) for allowed in _listed(statement["Action"]))
        and any(fnmatchcase(resource, allowed) for allowed in _listed(statement["Resource"]))
        and all(
            _holds(operator, context.get(key), _listed(wanted))
            for operator, conditions in statement.get("Condition", {}).items()
            for key, wanted in conditions.items()
        )
    )


def _holds(operator: str, found: str | Sequence[str] | None, wanted: list[str]) -> bool:
    quantifier, _, plain = operator.rpartition(":")
    plain, if_exists = plain.removesuffix("IfExists"), plain.endswith("IfExists")
    values = _listed(found)
    if not values:
        return if_exists or quantifier == "ForAllValues"
    match = fnmatchcase if plain in ("StringLike", "ArnLike", "ArnEquals") else str.__eq__
    assert plain in ("StringEquals", "StringLike", "ArnEquals", "Bool"), f"this does not know {operator}"
    assert quantifier == "ForAllValues" or len(values) == 1
    return all(any(match(value, allowed) for allowed in wanted) for value in values)


def _listed(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def wildcards(policy: Mapping[str, Any]) -> list[str]:
    """The statements with `*` for any action, or with an action of many names on any resource."""
    return [
        json.dumps(statement)
        for statement in policy["Statement"]
        if "*" in _listed(statement["Action"])
        or (_listed(statement.get("Resource")) == ["*"] and any("*" in one for one in _listed(statement["Action"])))
    ]
