"""The repair ladder: what a model meant by a call that can't be made as it is written.

Rung by rung, until a call fits its tool: (1) the text is read leniently (what stands around it, other names for
``name`` and ``arguments``, Python's syntax); (2) `json_repair` mends the JSON; and on both rungs names are compared
without case and punctuation, and values are turned into the type that the schema asks for where nothing is lost by it.
Of a call that is still wrong the complaint about its best reading remains.

A tool that writes gets rung 1 only: mending may have to guess where a text that breaks off was to end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from alpha_umi.data.call_texts import literal, python_call
from alpha_umi.errors import ToolError
from alpha_umi.tools.coerce import coerced
from alpha_umi.trajectory import Tool, ToolCall, json_text
from alpha_umi.validation import check_call, declared_parameters

LONGEST = 32 * 1024
"""Characters; longer texts are not repaired."""
LONGEST_MENDED = 2048
"""Characters; `json_repair` takes time that grows with the square of the length (0.6 s for this, at worst)."""
_NAMES = ("name", "tool", "tool_name", "function", "function_name", "action")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "tool_input", "action_input", "kwargs")
_OPENINGS = 8
_OPENING = re.compile(r"[{\[]")
_CALL = re.compile(r"\s*([\w.-]+)\s*\(?\s*(\{.*)\Z", re.DOTALL)
_LIMITS = (ValueError, RecursionError, TypeError, IndexError, KeyError, AttributeError)
_Reading = tuple[str, dict[str, Any]]


def repaired(call: ToolCall, tools: Sequence[Tool], careful: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of a call that can be made, as it is written or repaired.

    Args:
        call: As the model wrote it.
        tools: Those that it was shown.
        careful: Names of the tools for which nothing is guessed.

    Raises:
        ToolError: It can't be repaired; see `check_call`.
    """
    try:
        return call.name, check_call(call, tools)
    except ToolError as error:
        complaint = error
    if len(call.arguments) > LONGEST:
        raise complaint
    for guessed, (name, arguments) in _readings(call):
        tool = _tool(name, tools)
        if tool is not None and guessed and tool.name in careful:
            continue
        fitted = arguments if tool is None else _fitted(arguments, tool)
        reading = ToolCall(call.id, name if tool is None else tool.name, json_text(fitted))
        try:
            return reading.name, check_call(reading, tools)
        except ToolError as error:
            complaint = error
    raise complaint


def _readings(call: ToolCall) -> Iterator[tuple[bool, _Reading]]:
    """What the text may mean, and whether that was guessed; nothing is guessed of what can be read."""
    for guessed, values in ((False, _lenient), (True, _mended)):
        found = list(values(call.arguments))
        yield from ((guessed, reading) for value in found if (reading := _reading(value, call)) is not None)
        if found:
            return


def _lenient(text: str) -> Iterator[Any]:
    """The objects, and lists of them, in a text, as JSON, as Python literals and as a Python call."""
    end = 0
    for opening in islice(_OPENING.finditer(text), _OPENINGS):
        if opening.start() < end:
            continue
        value, end = _value(text, opening.start())
        if _is_object(value) or (isinstance(value, list) and any(map(_is_object, value))):
            yield value
        elif opening[0] == "{":  # what is in a broken object is no call
            break
    made = python_call(text.strip().strip("`").strip(), "")
    if made is not None:
        yield {"name": made.name, "arguments": made.parsed()}
    head = _CALL.match(text)
    if head is not None:
        value, _ = _value(head[2], 0)
        if _is_object(value):
            yield {"name": head[1], "arguments": value}


def _value(text: str, start: int) -> tuple[Any, int]:
    """The value that opens at ``start`` and where it ends; None if it is neither JSON nor a literal."""
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)
    except _LIMITS:
        end = 1 + max(text.rfind("}"), text.rfind("]"))
        value = literal(text[start:end])
        return (None, start) if value is None else (json.loads(json_text(value)), end)  # its keys may be no texts


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _mended(text: str) -> Iterator[Any]:
    """What `json_repair` makes of the text from its first brace."""
    import json_repair

    opening = text.find("{")
    if opening < 0 or len(text) > LONGEST_MENDED:
        return
    try:
        value = json_repair.loads(text[opening:], skip_json_loads=True)
        json_text(value)
    except _LIMITS:
        return
    yield value[0] if isinstance(value, list) and value else value


def _reading(value: Any, call: ToolCall) -> _Reading | None:
    """A call in any of the forms that models are taught; of a call whose name could be read, its arguments."""
    if not call.malformed:
        return (call.name, value) if isinstance(value, dict) else None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    if name is None:
        return _keyed(value)
    given = next((value[key] for key in _ARGUMENTS if key in value), None)
    if given is None:
        given = {key: one for key, one in value.items() if key not in (*_NAMES, "type", "id")}
    if isinstance(given, str):
        given = next(filter(_is_object, _lenient(given)), None)
    return (name, given) if isinstance(given, dict) else None


def _keyed(value: Mapping[str, Any]) -> _Reading | None:
    """``{"the_tool": {...}}``."""
    (name, given), *more = value.items() or [("", None)]
    return (name, given) if isinstance(given, dict) and not more else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _alike(name: str, names: Iterable[str]) -> str | None:
    """The one name that is the same but for case and punctuation."""
    alike = [one for one in names if one == name] or [one for one in names if _plain(one) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _tool(name: str, tools: Sequence[Tool]) -> Tool | None:
    own = _alike(name, [tool.name for tool in tools])
    own = own or _alike(name.rpartition(".")[2], [tool.name for tool in tools])  # functions.get_weather
    return next((tool for tool in tools if tool.name == own), None)


def _fitted(arguments: Mapping[str, Any], tool: Tool) -> dict[str, Any]:
    """The arguments under the names and in the types that the tool declares."""
    declared = declared_parameters(tool) or []
    named = {(_alike(key, declared) or key): value for key, value in arguments.items()}
    return coerced(named if len(named) == len(arguments) else dict(arguments), tool.parameters)
