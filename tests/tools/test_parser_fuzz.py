"""Whatever a model or a file says, reading it ends in a value or in words: never in another exception."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alpha_umi.errors import DataError, ToolError, UserError
from alpha_umi.tools.execution import Observation
from alpha_umi.tools.openapi import tools_of
from alpha_umi.tools.openapi_document import parse_document
from alpha_umi.tools.openapi_operation import read_operations
from alpha_umi.tools.repair import repaired
from alpha_umi.tools.schema import read_schemas
from alpha_umi.tools.toolbench import looks_like_toolbench, read_toolbench
from alpha_umi.trajectory import Decision, Tool, ToolCall, json_text, schema_problem
from alpha_umi.transcript import parse_calls, parse_planner, parse_single
from alpha_umi.validation import check_call

Check = Callable[[Any, Path], None]
IN_ALL = 100_000
IN_SHORT = 800

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1}, "days": {"type": ["integer", "null"], "minimum": 1},
        "hours": {"type": "array", "items": {"type": "integer"}}, "units": {"enum": ["metric", "imperial"]},
        "at": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
    },
    "required": ["city"],
}  # fmt: skip
WEATHER = Tool.of("get_weather", "Tells the weather.", PARAMETERS)
PAY = Tool.of("pay", "", {"type": "object", "properties": {"amount": {"type": "integer"}}})
OPEN = Tool.of("note", "", {"type": "object", "additionalProperties": True})
TOOLS = (WEATHER, PAY, OPEN)

# ---- what is given ------------------------------------------------------------------------------------------------

WRITTEN = [
    "Next: ", "Next: Caller", "Next: Summarizer", "Next: Give up", "Call: ", "Answer: ", "Give up: ", "\n", "\r", " ",
    '{"name": "', '"name": ', '"arguments": ', "get_weather", "GetWeather", "functions.pay", "note", "get_weather(",
    "city='Rome'", '{"city": "Rome"}', '"city"', '"days"', ": ", ", ", '"', "'", "\\", "\\u0041", "\\ud83d", "}", "{",
    "[", "]", "(", ")", "null", "None", "true", "True", "1", "-0", "1.5", "1e999", "NaN", "-Infinity", "9" * 5000,
    '{"name": "pay", "arguments": {"amount": "3"}}', '{"name": "note", "arguments": {"x": NaN}}', "```json",
    '{"get_weather": {"at": {"lat": "x"}}}', "[" * 3000, '{"a":' * 3000, "\x00", "\u2028", "\ud800", "\udfff", "é",
    "0x1F", "<tool_call>",
    "b''", "{1: 2}", "{*()}", "1j", "lambda: 0", "f(**x)", "# Tools", "<|end|>", "...", "//", "/* */", ";",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(WRITTEN) | st.text(max_size=6), max_size=14).map("".join)

STRANGE: list[Any] = [
    None, True, -1, 1.5, float("nan"), float("inf"), 1e400, 10**400, "", "x", "\ud800", [], {}, [[]], {"": {}},
    {"$ref": "#"}, {"$ref": "#/components/schemas/N"}, {"$ref": "http://e/"}, {"type": "x"}, {"type": ["string", 7]},
    "object", "NUMBER", "#/paths", "http://[::1", "{id}", "{" * 50, "[" * 3000, {"name": None}, {"enum": []},
    {"properties": [1]}, {"pattern": "("}, {"allOf": [{"$ref": "#/components/schemas/N"}, True]}, {"required": "a"},
]  # fmt: skip
SCHEMAS: Any = [
    {"type": "function", "function": {"name": "f", "description": "F.", "parameters": PARAMETERS}},
    {"name": "g", "parameters": {"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}},
]
TOOLBENCH: Any = {
    "tool_name": "Dice", "tool_description": "d",
    "api_list": [
        {"name": "Roll", "description": "Rolls.", "tool_name": "x", "optional_parameters": [],
         "required_parameters": [{"name": "sides", "type": "NUMBER", "description": "n", "default": "6"}]},
        {"api_name": "id", "api_description": None, "required_parameters": []},
    ],
}  # fmt: skip
OPENAPI: Any = {
    "openapi": "3.1.0", "info": {"title": "t", "version": "1"},
    "servers": [{"url": "https://{r}.x.example/v1", "variables": {"r": {"default": "eu"}}}], "security": [{"k": []}],
    "paths": {
        "/a/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"operationId": "g", "tags": ["t"], "parameters": [{"$ref": "#/components/parameters/P"}]},
            "post": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/N"}}}}},
        },
    },
    "components": {
        "parameters": {"P": {"name": "p", "in": "query", "style": "form", "explode": True, "schema": PARAMETERS}},
        "schemas": {"N": {"properties": {"n": {"$ref": "#/components/schemas/N"}, "m": {"default": 1}}}},
    },
}  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def spoiled(sound: Any) -> st.SearchStrategy[str]:
    """JSON text of a value of which parts are replaced, removed or doubled, sometimes cut or nested without end."""
    change = st.tuples(st.integers(0, 200), st.sampled_from([*STRANGE, "remove", "wrap", "double"]))
    ending = st.sampled_from([""] * 20 + ["cut", "[" * 3000, '{"a":' * 3000, "}", "\x00", "\ud800", "nothing"])
    return st.builds(_spoil, st.just(sound), st.lists(change, min_size=1, max_size=3), ending, st.integers(0, 10_000))


def _spoil(sound: Any, changes: list[tuple[int, Any]], ending: str, at: int) -> str:
    root = [copy.deepcopy(sound)]
    for number, made in changes:
        found = list(places(root))
        if not found:
            break
        container, key = found[number % len(found)]
        if made == "remove":
            del container[key]
        elif made in ("wrap", "double"):
            container[key] = [container[key]] * (1 if made == "wrap" else 2)
        else:
            container[key] = copy.deepcopy(made)
    text = json.dumps(root[0]) if root else ""
    if ending in ("cut", "nothing"):
        return text[: at % (len(text) + 1)] if ending == "cut" else ""
    return ending + text if len(ending) > 1 else text + ending


# ---- what must come of it -----------------------------------------------------------------------------------------


def planner(text: str, folder: Path) -> None:
    rationale, decision = parse_planner(text)
    assert rationale == text if decision is None else text.startswith(rationale)
    assert decision is None or decision in Decision


def caller(text: str, folder: Path) -> None:
    calls = parse_calls(text)
    assert [call.id for call in calls] == [f"call_{number}" for number in range(len(calls))] != []
    for call in calls:
        arguments = within_words(lambda call=call: check_call(call, TOOLS))
        assert arguments is None or json.loads(json.dumps(arguments, allow_nan=False)) == arguments


def single(text: str, folder: Path) -> None:
    message = parse_single(text)
    assert message.decision is not None or message.reasoning_content == text


def repair(text: str, folder: Path) -> None:
    for call in parse_calls(text):
        made = within_words(lambda call=call: repaired(call, TOOLS, {"pay"}))
        if made is not None:
            name, arguments = made
            assert check_call(ToolCall("c", name, json_text(arguments)), TOOLS) == arguments


def within_words(read: Callable[[], Any]) -> Any:
    """What is read; None where that ended in an observation."""
    try:
        return read()
    except ToolError as error:
        assert json.loads(Observation.failure(error).text)["error"].startswith(error.kind)
        return None


def schemas(text: str, folder: Path) -> None:
    listed(lambda: read_schemas(saved(text, folder)))


def toolbench(text: str, folder: Path) -> None:
    path = saved(text, folder)
    listed(lambda: read_toolbench(path))
    try:
        assert looks_like_toolbench(json.loads(text)) in (True, False)
    except (ValueError, RecursionError):
        return


def saved(text: str, folder: Path) -> Path:
    path = folder / "tools.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def listed(read: Callable[[], tuple[Tool, ...]]) -> None:
    try:
        tools = read()
    except DataError as error:
        assert "\n" not in str(error)
        return
    for tool in tools:
        usable(tool)


def openapi(text: str, folder: Path) -> None:
    try:
        tools, left_out = tools_of(read_operations(parse_document(text, "it")))
    except UserError as error:
        assert str(error).startswith("it ")
        return
    assert all(left_out.values())
    for tool, _ in tools:
        assert schema_problem(tool.schema) is None
        usable(tool)


def usable(tool: Tool) -> None:
    """A call of the tool can be made, or is refused in words; its schema is JSON in UTF-8."""
    within_words(lambda: check_call(ToolCall("c", tool.name, '{"city": "Rome", "x": 1}'), (tool,)))
    json.dumps(json.loads(tool.schema), allow_nan=False).encode()
    tool.schema.encode()


CASES: dict[str, tuple[st.SearchStrategy[str], Check]] = {
    "planner": (TEXTS, planner),
    "caller": (TEXTS, caller),
    "single": (TEXTS, single),
    "repair": (TEXTS, repair),
    "repair of a spoiled call": (spoiled({"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}), repair),
    "schemas": (spoiled(SCHEMAS) | TEXTS, schemas),
    "toolbench": (spoiled(TOOLBENCH) | spoiled([TOOLBENCH]), toolbench),
    "openapi": (spoiled(OPENAPI), openapi),
}


def fuzz(name: str, examples: int, folder: Path) -> None:
    """Reads as many texts; the same ones every time."""
    texts, check = CASES[name]
    read: Counter[str] = Counter()

    @settings(max_examples=examples)
    @given(texts)
    def run(text: str) -> None:
        check(text, folder)
        read[name] += 1

    run()
    assert read[name] >= examples


@pytest.mark.parametrize("name", CASES)
def test_no_text_breaks_a_parser(name: str, tmp_path: Path) -> None:
    fuzz(name, IN_SHORT // len(CASES), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CASES)
def test_a_hundred_thousand_texts_break_no_parser(name: str, tmp_path: Path) -> None:
    fuzz(name, IN_ALL // len(CASES), tmp_path)
