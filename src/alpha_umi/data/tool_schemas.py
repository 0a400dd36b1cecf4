"""Foreign tool schemas and calls: OpenAI function objects, calls written as one JSON object, tools nobody documented.

A function object stands alone (bare) or in ``{"type": "function", "function": {...}}``; lists of them come as JSON or
as a string of JSON. Where the source is a string, schemas and arguments are cut out of it and never re-serialised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from alpha_umi.data.records import BrokenLine, RecordError, read_records
from alpha_umi.errors import DataError
from alpha_umi.trajectory import Extra, Tool, ToolCall, items_of, json_text, members_of, schema_problem

_KINDS: Mapping[type, str] = {
    bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object", type(None): "null",
}  # fmt: skip
_ARGUMENTS = ("arguments", "parameters")


def keep(namespace: str, notes: Mapping[str, Any]) -> Extra:
    """What a record has beyond the trajectory, as ``extra``; empty if there is nothing."""
    return {namespace: dict(notes)} if notes else {}


def json_or_text(text: str) -> Any:
    """The value of a JSON text; the text itself if it holds none, or one that would be read as a text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) else value


# ---- tools --------------------------------------------------------------------------------------------------------


def make_tool(schema: str, extra: Extra) -> Tool:
    """A tool of the text of its function object.

    Raises:
        RecordError: It is no function object, or its parameters are no JSON Schema.
    """
    try:
        tool = Tool(schema, extra)
    except ValueError as error:
        raise RecordError("a tool is no function object with a name and an object of parameters") from error
    if schema_problem(tool.schema) is not None:
        raise RecordError("a tool's parameters are no JSON Schema")
    return tool


def read_tool(value: Any, namespace: str, text: str | None = None) -> Tool:
    """A tool of a function object, wrapped or bare; ``extra`` remembers which, and what stood beside the function.

    Args:
        value: The parsed JSON.
        namespace: Of ``extra``.
        text: The JSON text, if the source has one.

    Raises:
        RecordError: It is no function object, or its parameters are no JSON Schema.
    """
    if not isinstance(value, dict):
        raise RecordError("a tool is no function object with a name and an object of parameters")
    return _read_tool(json_text(value) if text is None else text.strip(), namespace)


@lru_cache(maxsize=1024)  # the same tools come with many records
def _read_tool(text: str, namespace: str) -> Tool:
    value = json.loads(text)
    if "function" not in value:
        return make_tool(text, keep(namespace, {"bare": True}))
    if value.get("type", "function") != "function":
        raise RecordError("a tool is not of type function")
    function = _member_texts(text)["function"]
    fields = {key: part for key, part in value.items() if key not in ("type", "function")}
    notes = ({"fields": fields} if fields else {}) | ({} if "type" in value else {"untyped": True})
    return make_tool(function, keep(namespace, notes))


def read_tools(value: Any, namespace: str) -> tuple[tuple[Tool, ...], bool | str]:
    """The tools of a list, or of a string that holds one, and what `write_tools` needs to give it back.

    Raises:
        RecordError: It is no list of function objects.
    """
    if not isinstance(value, str):
        if not isinstance(value, list):
            raise RecordError("tools: neither a list nor a string")
        return tuple(read_tool(one, namespace) for one in value), False
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise RecordError("tools: a string that is not JSON") from error
    if not isinstance(parsed, list):
        raise RecordError("tools: a string that holds no list")
    cuts = items_of(value, len(value) - len(value.lstrip()))
    tools = tuple(read_tool(one, namespace, value[a:b]) for one, (a, b) in zip(parsed, cuts, strict=True))
    return tools, value if tools_text(tools, namespace) != value else True


def write_tools(tools: Sequence[Tool], namespace: str, as_text: bool | str) -> Any:
    """The tools as a list, as a string, or as the string they came in, if they are still the same."""
    if not as_text:
        return [write_tool(tool, namespace) for tool in tools]
    if isinstance(as_text, str) and read_tools(as_text, namespace)[0] == tuple(tools):
        return as_text
    return tools_text(tools, namespace)


def write_tool(tool: Tool, namespace: str) -> dict[str, Any]:
    """The tool's function object, wrapped unless it came bare."""
    return json.loads(_tool_text(tool, namespace))


def tools_text(tools: Iterable[Tool], namespace: str) -> str:
    """The tools as the text of a JSON list, every schema verbatim."""
    return f"[{', '.join(_tool_text(tool, namespace) for tool in tools)}]"


def _tool_text(tool: Tool, namespace: str) -> str:
    notes = tool.extra.get(namespace, {})
    if notes.get("bare"):
        return tool.schema
    kind = "" if notes.get("untyped") else '"type": "function", '
    beside = "".join(f", {json_text(key)}: {json_text(value)}" for key, value in notes.get("fields", {}).items())
    return f'{{{kind}"function": {tool.schema}{beside}}}'


def read_tool_file(path: Path, namespace: str) -> tuple[Tool, ...]:
    """The tools of a file of function objects (``--tools``).

    Raises:
        DataError: The file can't be read, or an entry is no tool.
    """
    tools: list[Tool] = []
    for number, entry in enumerate(read_records(path)):
        try:
            if isinstance(entry, BrokenLine):
                raise RecordError(entry.reason)
            tools.append(read_tool(entry, namespace))
        except RecordError as error:
            raise DataError(path, f"tool {number}: {error}") from error
    return tuple(tools)


def inferred_tools(calls: Iterable[ToolCall], namespace: str) -> tuple[Tool, ...]:
    """Tools nobody documented, in order of name: what they were given, required if every call gave it.

    Calls that can't be read are passed over. No description is made up; ``extra`` says that the tool is inferred.
    """
    given: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        arguments = call.parsed()
        if call.name and arguments is not None:
            given.setdefault(call.name, []).append(arguments)
    return tuple(_inferred(name, given[name], namespace) for name in sorted(given))


def _inferred(name: str, given: Sequence[Mapping[str, Any]], namespace: str) -> Tool:
    kinds: dict[str, set[str]] = {}
    for arguments in given:
        for argument, value in arguments.items():
            kinds.setdefault(argument, set()).add(_KINDS[type(value)])
    properties = {argument: {"type": _type(found)} for argument, found in kinds.items()}
    always = set.intersection(*(set(arguments) for arguments in given))
    required = [argument for argument in properties if argument in always]
    parameters = {"type": "object", "properties": properties} | ({"required": required} if required else {})
    return Tool.of(name, "", parameters, keep(namespace, {"inferred": True}))


def _type(kinds: set[str]) -> str | list[str]:
    found = sorted(kinds - {"integer"} if "number" in kinds else kinds)
    return found[0] if len(found) == 1 else found


# ---- calls --------------------------------------------------------------------------------------------------------


def make_call(call_id: str, name: str, arguments: str) -> ToolCall:
    """A call, marked as malformed if it has no name or its arguments are no JSON object."""
    call = ToolCall(call_id, name, arguments)
    return call if name and call.parsed() is not None else ToolCall(call_id, name, arguments, malformed=True)


def read_call(text: str, call_id: str) -> ToolCall:
    """A call written as ``{"name": ..., "arguments": {...}}`` (or ``parameters``, or the arguments as a string).

    One that can't be read keeps all its text as arguments and is marked malformed.
    """
    try:
        value = json.loads(text)
        texts = _member_texts(text) if isinstance(value, dict) else {}
    except (ValueError, RecursionError):
        return ToolCall(call_id, "", text, malformed=True)
    name = value["name"] if isinstance(value, dict) and isinstance(value.get("name"), str) else ""
    key = next((key for key in _ARGUMENTS if key in texts), None)
    arguments = value[key] if key else None
    if name and key and isinstance(arguments, str):
        return make_call(call_id, name, arguments)
    if name and key and isinstance(arguments, dict):
        return ToolCall(call_id, name, texts[key])
    return ToolCall(call_id, name, text, malformed=True)


def call_text(call: ToolCall) -> str:
    """The call as one JSON object that `read_call` reads again.

    Raises:
        RecordError: It can't be written so, because it is malformed in a way that this form doesn't have.
    """
    name = json_text(call.name)
    forms = (f'{{"name": {name}, "arguments": {call.arguments}}}', call.arguments,
             f'{{"name": {name}, "arguments": {json_text(call.arguments)}}}')  # fmt: skip
    for form in forms:
        if read_call(form, call.id) == call:
            return form
    raise RecordError("a malformed call can't be written in this format")


def _member_texts(text: str) -> dict[str, str]:
    """The verbatim text of each member's value in the text of a JSON object."""
    start = len(text) - len(text.lstrip())
    return {key: text[begin:stop] for key, begin, stop in members_of(text, start)}
