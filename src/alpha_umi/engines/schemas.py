"""Tools' JSON Schemas as `llguidance` is to read them: what they leave open is closed where a call could not be made.

* Formats that nobody checks are left out. An object that lists its properties and says nothing of others takes no
  others, at any depth.
* A number has bounds: JSON knows ``1e999``, Python reads it as infinite, and `alpha_umi.validation` refuses it. Where a
  schema gives none, a number lies within ± `LARGEST`, about what 64 bits hold; `llguidance` writes a bounded number
  without an exponent. That holds for values of any kind, too, however deep. Integers have as many digits as they like.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpha_umi.trajectory import Tool
from alpha_umi.validation import declared_parameters

LARGEST = 9 * 10**18
"""The largest round number that `llguidance` takes for a bound."""

_LONGEST = 1 << 16
_LARGEST_FACTOR = 10_000
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}

_ANY = "value-of-any-kind"
_ANY_VALUE = {"$ref": f"#/$defs/{_ANY}"}
_TYPES = ["null", "boolean", "string", "number", "array", "object"]
_ANY_DEFINED = {
    "type": _TYPES, "minimum": -LARGEST, "maximum": LARGEST, "items": _ANY_VALUE, "additionalProperties": _ANY_VALUE,
}  # fmt: skip

_ELSEWHERE = {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if"}
"""A schema with one of these says elsewhere what it takes."""
_OPEN = _ELSEWHERE | {"additionalProperties", "patternProperties", "unevaluatedProperties", "dependentSchemas"}
"""An object with one of these declares properties elsewhere, or takes undeclared ones."""
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_ITEMS = ("items", "prefixItems", "additionalProperties")
_COMBINED = ("anyOf", "oneOf", "allOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")

ANY_OBJECT: Mapping[str, Any] = {
    "type": "object", "additionalProperties": _ANY_VALUE, "$defs": {_ANY: _ANY_DEFINED},
}  # fmt: skip
"""What a tool takes whose own schema can't be compiled."""


def arguments_schema(tool: Tool) -> dict[str, Any]:
    """The tool's parameters, allowing no more than they did.

    Raises:
        ValueError: They had better not be compiled.
    """
    if len(tool.schema) > _LONGEST:
        raise ValueError(f"the schema has {len(tool.schema)} characters; {_LONGEST} is the most")
    try:
        closed = {} if declared_parameters(tool) is None else {"additionalProperties": False}
        return adapted({**tool.parameters, "type": "object", **closed})
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def adapted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A whole schema as `llguidance` is to read it.

    Raises:
        ValueError: It had better not be compiled.
    """
    out = _adapted(dict(schema), True)
    defined = out.get("$defs", {})
    return {**out, "$defs": {**defined, _ANY: _ANY_DEFINED}} if isinstance(defined, dict) else out


def _adapted(schema: Any, close: bool) -> Any:
    """A schema, or a part of one; objects that list their properties are closed, if wanted."""
    if not isinstance(schema, dict):
        return _ANY_VALUE if schema is True else schema
    factor = schema.get("multipleOf")
    if isinstance(factor, int | float) and factor > _LARGEST_FACTOR:
        raise ValueError(f"multipleOf {factor} is too large")
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            # what is defined once may be used where closing it would say something else
            inner = close and key == "properties"
            out[key] = {name: _adapted(part, inner) for name, part in value.items()}
        elif key in _ITEMS or key in _COMBINED:
            inner = close and (key in _ITEMS or (key == "anyOf" and "properties" not in schema))
            out[key] = [_adapted(part, inner) for part in value] if isinstance(value, list) else _adapted(value, inner)
        elif key != "format" or value in _FORMATS:
            out[key] = value
    if close and "properties" in schema and not schema.keys() & _OPEN:
        out["additionalProperties"] = False
    return _bounded(out)


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose numbers are finite, as far as it is this schema that says what they are."""
    if schema.keys() & (_ELSEWHERE | {"enum", "const"}):
        return schema
    types = schema.get("type", _TYPES)
    types = types if isinstance(types, list) else [types]
    more: dict[str, Any] = {} if "type" in schema else {"type": types}
    if "number" in types:
        more |= _missing_bounds(schema)
    if "array" in types and not schema.keys() & {"items", "additionalItems", "unevaluatedItems"}:
        more["items"] = _ANY_VALUE
    if "object" in types and not schema.keys() & {"additionalProperties", "unevaluatedProperties", "dependentSchemas"}:
        more["additionalProperties"] = _ANY_VALUE
    return schema | more


def _missing_bounds(schema: Mapping[str, Any]) -> dict[str, int]:
    given = [schema[key] for key in _BOUNDS if key in schema]
    if not all(isinstance(bound, int | float) and abs(bound) <= LARGEST for bound in given):
        return {}
    least = {} if "minimum" in schema or "exclusiveMinimum" in schema else {"minimum": -LARGEST}
    most = {} if "maximum" in schema or "exclusiveMaximum" in schema else {"maximum": LARGEST}
    return least | most
