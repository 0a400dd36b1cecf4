"""Calls and tool lists in forms of their own: lists of calls as text, Python's syntax, Python's words for types.

What the formats of text form share beyond `tool_schemas`. Python is only ever parsed (`ast`), never evaluated.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from alpha_umi.data import tool_schemas
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, items_of, json_text

_NOT_A_LITERAL = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)
_JSON_TYPES = {"string", "integer", "number", "boolean", "array", "object", "null"}
_TYPES = {
    "str": "string", "string": "string", "date": "string", "datetime": "string", "time": "string",
    "int": "integer", "integer": "integer",
    "float": "number", "number": "number", "double": "number",
    "bool": "boolean", "boolean": "boolean",
    "list": "array", "array": "array", "tuple": "array", "set": "array",
    "dict": "object", "object": "object",
}  # fmt: skip
_TYPE_WORDS = re.compile(r"\s*([A-Za-z]+)\s*(?:[\[(](.*)[\])])?\s*(?:,.*)?\Z", re.DOTALL)


# ---- calls --------------------------------------------------------------------------------------------------------


def json_items(text: str) -> list[str] | None:
    """The verbatim texts of a JSON array's items; None if ``text`` is no JSON array."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    return [text[start:stop] for start, stop in items_of(text, len(text) - len(text.lstrip()))]


def read_call(text: str, call_id: str) -> ToolCall:
    """Reads ``{"name": ..., "arguments": {...}}``, written in JSON (verbatim) or as a Python dictionary."""
    call = tool_schemas.read_call(text, call_id)
    if call.malformed:
        value = literal(text)
        if isinstance(value, dict) and isinstance(value.get("arguments"), dict) and isinstance(value.get("name"), str):
            return tool_schemas.make_call(call_id, value["name"], json_text(value["arguments"]))
    return call


def read_calls(texts: Iterable[str], made: int = 0) -> tuple[ToolCall, ...]:
    """Reads several calls; their ids go on from the ``made`` calls that were before them."""
    return tuple(read_call(text, f"call_{number}") for number, text in enumerate(texts, made + 1))


def python_call(text: str, call_id: str) -> ToolCall | None:
    """Reads ``Api(key='value', n=3)``; None if it is no call with literal keyword arguments."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node = ast.parse(text.strip(), mode="eval").body
            if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
                return None
            arguments = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
        return ToolCall(call_id, ast.unparse(node.func), json_text(arguments))
    except _NOT_A_LITERAL:
        return None


def literal(text: str) -> Any:
    """The value of a Python literal that JSON can hold, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text.strip())
        json_text(value)
    except _NOT_A_LITERAL:
        return None
    return value


def says_the_same(one: AssistantMessage, other: AssistantMessage) -> bool:
    """Whether two turns hold the same words and calls, whatever the ids of the calls and the ``extra``."""

    def words(message: AssistantMessage) -> tuple[object, ...]:
        calls = tuple((call.name, call.arguments, call.malformed) for call in message.tool_calls)
        return message.reasoning_content, calls, message.content, message.refusal

    return words(one) == words(other)


# ---- tools --------------------------------------------------------------------------------------------------------


def read_tools(given: Any, namespace: str) -> tuple[tuple[Tool, ...], Any]:
    """The tools of a list or of a string that holds one, and what `write_tools` needs to give it back.

    Types in Python's words (``str``, ``List[int]``, ``int, optional``), which no JSON Schema has, are put into JSON
    Schema's.

    Raises:
        RecordError: It is no list of function objects.
    """
    try:
        return tool_schemas.read_tools(given, namespace)
    except RecordError:
        if isinstance(given, str) and json_items(given) is None:
            raise
        listed = json.loads(given) if isinstance(given, str) else given
        tools, _ = tool_schemas.read_tools(_in_json_types(listed), namespace)
        return tools, {"given": given}


def write_tools(tools: tuple[Tool, ...], namespace: str, form: Any) -> Any:
    """The tools as `read_tools` found them, if they are still the same, else in the same form."""
    if not isinstance(form, Mapping):
        return tool_schemas.write_tools(tools, namespace, form)
    given = form["given"]
    if read_tools(given, namespace)[0] == tools:
        return given
    return tool_schemas.write_tools(tools, namespace, isinstance(given, str))


def _in_json_types(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_json_types(one) for one in value]
    if not isinstance(value, dict):
        return value
    mended: dict[str, Any] = {}
    for key, one in value.items():
        if key == "type" and isinstance(one, str) and one not in _JSON_TYPES and one != "function":
            mended |= type_schema(one)
        else:
            mended[key] = _in_json_types(one)
    return mended


def type_schema(words: str) -> dict[str, Any]:
    """JSON Schema of a type in Python's words: ``str``, ``List[int]``, ``list(str)``, ``Optional[str]``.

    What follows a comma (``, optional``) is no part of the type; an unknown type is left open.
    """
    found = _TYPE_WORDS.match(words)
    if found is None:
        return {}
    kind, inner = found[1].lower(), found[2]
    if kind == "optional" and inner:
        return type_schema(inner)
    schema: dict[str, Any] = {"type": _TYPES[kind]} if kind in _TYPES else {}
    items = type_schema(inner) if kind in ("list", "array", "set") and inner else {}
    return schema | ({"items": items} if items else {})
