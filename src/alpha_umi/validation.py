"""Whether a call can be made: its tool exists, and its arguments are what the tool's schema asks for."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jsonschema
import referencing
from jsonschema.protocols import Validator

from alpha_umi.errors import ToolError
from alpha_umi.trajectory import Tool, ToolCall


def check_call(call: ToolCall, tools: Sequence[Tool]) -> dict[str, Any]:
    """The arguments of a call that can be made.

    Raises:
        ToolError: It can't: ``malformed_call``, ``unknown_tool`` or ``invalid_arguments``, with what to do instead.
    """
    if call.malformed:
        raise ToolError("malformed_call", 'this is no call; write {"name": "...", "arguments": {...}} and nothing else')
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        raise ToolError("unknown_tool", _unknown(call.name, [tool.name for tool in tools]))
    arguments = call.parsed()
    if arguments is None:
        raise ToolError("invalid_arguments", "the arguments must be one JSON object")
    problem = not_finite(arguments) or _unknown_parameter(tool, arguments) or _against_schema(tool, arguments)
    if problem is not None:
        raise ToolError("invalid_arguments", problem)
    return arguments


def _unknown(name: str, names: Sequence[str]) -> str:
    if not names:
        return f"there is no tool {name!r}; there are no tools at all"
    near = difflib.get_close_matches(name, names, n=1)
    rest = f"did you mean {near[0]!r}?" if near else f"the tools are {', '.join(names)}"
    return f"there is no tool {name!r}; {rest}"


def not_finite(value: Any) -> str | None:
    """The first number in a parsed JSON value that JSON has no form for, in words; None if there is none.

    Python reads ``NaN`` and ``Infinity``, which JSON doesn't have, and takes ``1e999`` for an infinity.
    """
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        where, one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return f"{repr(where)[1:-1] + ': ' if where else ''}{json.dumps(one)} is no finite number"
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        waiting += [(f"{where}.{key}" if where else str(key), part) for key, part in inner][::-1]
    return None


def declared_parameters(tool: Tool) -> list[str] | None:
    """The parameter names that a tool declares; None if its schema takes others too, or declares some elsewhere.

    A schema that says nothing of further parameters is closed. One opens it with ``additionalProperties`` or
    ``patternProperties``, and declares parameters in parts of it with ``$ref``, ``allOf``, ``anyOf`` or ``oneOf``.
    """
    schema = tool.parameters
    if schema.get("additionalProperties") or schema.get("patternProperties"):
        return None
    if schema.keys() & {"$ref", "allOf", "anyOf", "oneOf"}:
        return None
    properties = schema.get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _unknown_parameter(tool: Tool, arguments: dict[str, Any]) -> str | None:
    known = declared_parameters(tool)
    if known is None:  # left to the validator
        return None
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            rest = f"did you mean {near[0]!r}?" if near else f"the parameters are {', '.join(known) or 'none'}"
            return f"{tool.name} has no parameter {name!r}; {rest}"
    return None


def _against_schema(tool: Tool, arguments: dict[str, Any]) -> str | None:
    """The first violation in words; None as well where the tool's own schema can't be used."""
    try:
        error = next(iter(_validator(tool.schema).iter_errors(arguments)), None)
    except Exception:  # whatever a foreign schema breaks in the validator is not the model's mistake
        return None
    if error is None:
        return None
    where = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "required":
        return f"{where + ': ' if where else ''}{error.message.replace(' is a required property', ' is required')}"
    message = error.message if len(error.message) <= 300 else error.message[:300] + "..."
    return f"{where}: {message}" if where else message


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    parameters = Tool(schema).parameters
    # an empty registry, so that no reference is ever fetched from the network
    return jsonschema.Draft202012Validator(parameters, registry=referencing.Registry())
