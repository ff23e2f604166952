"""Arguments that a tool of `realm mcp` does not take: what an assistant is told of them."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

SHOWN_CHARACTERS = 80
"""Of what was found, in a message."""
_KINDS = {"string": "text", "integer": "a whole number", "number": "a number", "null": "null"}


def refusal(schema: Mapping[str, Any], error: ValidationError) -> str:
    """Return one sentence: each argument that is wrong, what was found, what is expected.

    Args:
        schema: of the tool's arguments, as it publishes it.
        error: what pydantic found.

    Returns:
        Such as "num_answers: found 0, expected a whole number from 1 to 20".
    """
    told: dict[str, str] = {}
    for one in error.errors():
        name = str(one["loc"][0]) if one["loc"] else "arguments"
        found = "nothing" if one["type"] == "missing" else _shown(one["input"])
        expected = allowed(schema.get("properties", {}).get(name, {}))
        told.setdefault(name, f"{name}: found {found}, expected {expected}")
    return "; ".join(told.values())


def allowed(schema: Mapping[str, Any]) -> str:
    """Return in words what the schema of one argument allows."""
    if "anyOf" in schema:
        return " or ".join(allowed(one) for one in schema["anyOf"])
    if "enum" in schema:
        *others, last = map(repr, schema["enum"])
        return f"{', '.join(others)} or {last}" if others else last
    told = _KINDS.get(schema.get("type", ""), "what its schema says")
    if schema.get("minLength"):
        told += " that is not empty"
    if "minimum" in schema:
        told += f" from {schema['minimum']:,}"
    if "maximum" in schema:
        told += f" to {schema['maximum']:,}"
    return told


def _shown(value: object) -> str:
    told = "null" if value is None else repr(value)
    return told if len(told) <= SHOWN_CHARACTERS else f"{told[:SHOWN_CHARACTERS]}..."
