"""A call that is wrong in its form is made as it was meant; one that is wrong in what it says is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.errors import ToolError
from alpha_umi.tools import Approval, ApprovalPolicy
from alpha_umi.tools.coerce import coerced
from alpha_umi.tools.execution import Observation, ReadyCall, perform, prepare
from alpha_umi.tools.repair import repaired
from alpha_umi.trajectory import Tool, ToolCall
from alpha_umi.transcript import parse_calls

WEATHER = Tool.of(
    "get_weather",
    "",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1},
            "units": {"enum": ["metric", "imperial"]},
            "hours": {"type": "array", "items": {"type": "integer"}},
            "at": {"type": "object", "properties": {"lat": {"type": "number"}}},
        },
        "required": ["city"],
    },
)
PAY = Tool.of("pay", "", {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]})
TOOLS = (WEATHER, PAY)
ROME = {"city": "Rome", "days": 2}


def mended(text: str) -> tuple[str, dict[str, Any]]:
    (call,) = parse_calls(text)
    return repaired(call, TOOLS, {"pay"})


def complaint(text: str) -> tuple[str, str]:
    with pytest.raises(ToolError) as caught:
        mended(text)
    return caught.value.kind, str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}',
        # what stands around it
        'Sure! {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}} I hope this helps.',
        '```json {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}} ```',
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}</tool_call>',
        '[note 1] {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}',
        # other forms
        '{"arguments": {"city": "Rome", "days": 2}, "name": "get_weather"}',
        '{"name":"get_weather","arguments":{"city":"Rome","days":2}}',
        '[{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}]',
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}}',
        '[1] {"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}',
        '{"tool": "get_weather", "parameters": {"city": "Rome", "days": 2}}',
        '{"action": "get_weather", "action_input": {"city": "Rome", "days": 2}}',
        '{"name": "get_weather", "city": "Rome", "days": 2}',
        '{"get_weather": {"city": "Rome", "days": 2}}',
        'get_weather({"city": "Rome", "days": 2})',
        'get_weather {"city": "Rome", "days": 2}',
        "get_weather(city='Rome', days=2)",
        "{'name': 'get_weather', 'arguments': {'city': 'Rome', 'days': 2}}",
        # broken JSON
        '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2',
        '{"name": "get_weather", "arguments": {"city": "Rome", "days": 2,}',
        '{name: "get_weather", arguments: {city: "Rome", days: 2}}',
        '{"name": "get_weather" "arguments": {"city": "Rome" "days": 2}}',
        # names and types
        '{"name": "GetWeather", "arguments": {"City": "Rome", "days": "2"}}',
        '{"name": "functions.get_weather", "arguments": {"city": "Rome", "days": 2.0}}',
        '{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\", \\"days\\": 2}"}',
    ],
)
def test_a_call_is_made_as_it_was_meant(text: str) -> None:
    assert mended(text) == ("get_weather", ROME)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("oops", "malformed_call", '{"name": "...", "arguments": {...}}'),
        ("", "malformed_call", "this is no call"),
        ("get_weather(Rome)", "malformed_call", "this is no call"),
        ('{"name": "get_wether", "arguments": {"city": "Rome"}', "unknown_tool", "did you mean 'get_weather'?"),
        ('{"name": "get_weather", "arguments": {"days": 2}', "invalid_arguments", "'city' is required"),
        (
            '{"name": "get_weather", "arguments": {"city": "Rome", "days": "two"}}',
            "invalid_arguments",
            "'two' is not of",
        ),
        ('{"name": "get_weather", "arguments": {"city": "Rome", "days": "0"}}', "invalid_arguments", "0 is less than"),
        ('{"name": "get_wether", "arguments": {"name": "pay"}', "unknown_tool", "did you mean 'get_weather'?"),
        ('{"name": "get_weather", "arguments": {"town": "Rome"}}', "invalid_arguments", "the parameters are city"),
        ('[{"name": "get_weather", "arguments": {}}, {"name": "pay", "arguments": {}}]', "malformed_call", "no call"),
        # keys that Python has and JSON has not
        ("get_weather{1: 2}", "invalid_arguments", "no parameter '1'"),
        ("{1: {2: 3}}", "unknown_tool", "there is no tool '1'"),
        ("{'name': 'get_weather', 'arguments': {None: 1}}", "invalid_arguments", "no parameter 'null'"),
        ("{'name': 'get_weather', 'arguments': {'at': {'lat': 1e999}}}", "invalid_arguments", "at.lat: Infinity is no"),
    ],
)
def test_what_cannot_be_repaired_is_told_what_is_wrong_with_it(text: str, kind: str, words: str) -> None:
    found = complaint(text)
    assert found[0] == kind
    assert words in found[1]


def test_nothing_is_guessed_for_a_tool_that_writes() -> None:
    assert mended("```\n{'name': 'pay', 'arguments': {'amount': '10'}}\n```".replace("\n", " ")) == (
        "pay",
        {"amount": 10},
    )
    assert complaint('{"name": "pay", "arguments": {"amount": 10')[0] == "malformed_call"
    assert complaint("{name: pay, arguments: {amount: 10}}")[0] == "malformed_call"


def test_a_very_long_text_is_not_repaired() -> None:
    assert complaint("{" + "x" * 10**6)[0] == "malformed_call"


def test_a_name_that_two_tools_are_like_is_none_of_them() -> None:
    tools = (Tool('{"name": "get_it"}'), Tool('{"name": "getIt"}'))
    with pytest.raises(ToolError, match="there is no tool 'GETIT'"):
        repaired(ToolCall("call_0", "GETIT", "{}"), tools, ())


# ---- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "schema", "made"),
    [
        ("3", {"type": "integer"}, 3),
        (" -3 ", {"type": "integer"}, -3),
        ("3.5", {"type": "integer"}, "3.5"),
        ("3.5", {"type": "number"}, 3.5),
        ("1e999", {"type": "number"}, "1e999"),
        ("NaN", {"type": "number"}, "NaN"),
        ("True", {"type": "boolean"}, True),
        ("yes", {"type": "boolean"}, "yes"),
        (1, {"type": "boolean"}, 1),
        (3, {"type": "string"}, "3"),
        (True, {"type": "string"}, "true"),
        ({"a": 1}, {"type": "string"}, {"a": 1}),
        ("3", {"type": ["string", "integer"]}, "3"),
        ("3", {"type": ["null", "integer"]}, 3),
        ("Null", {"type": ["null", "integer"]}, None),
        ("3", {}, "3"),
        ("3", {"type": "whatever"}, "3"),
        (1, {"type": "array", "items": {"type": "string"}}, ["1"]),
        ("a", {"type": "array"}, ["a"]),
        ('["a"]', {"type": "array"}, ["a"]),
        ('{"n": "1"}', {"type": "object", "properties": {"n": {"type": "integer"}}}, {"n": 1}),
        ([" METRIC"], {"type": "array", "items": {"enum": ["metric", "imperial"]}}, ["metric"]),
        ("m", {"enum": ["M", "m"]}, "m"),
        ("m", {"enum": ["M", 1]}, "M"),
        ([["1"]], {"items": {"items": {"type": "integer"}}}, [[1]]),
    ],
)
def test_a_value_takes_the_type_that_is_asked_for_where_nothing_is_lost(value: Any, schema: Any, made: Any) -> None:
    assert coerced(value, schema) == made
    assert type(coerced(value, schema)) is type(made)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON | st.fixed_dictionaries({"type": JSON, "items": JSON, "properties": JSON, "enum": JSON}))
def test_whatever_value_and_schema_are_there_is_a_value(value: Any, schema: Any) -> None:
    coerced(value, schema)


# ---- texts of all kinds ---------------------------------------------------------------------------------------------

_CALL = '{"name": "get_weather", "arguments": '
_PIECES = st.sampled_from([
    *("{", "}", "[", "]", '"', "'", ",", ":", "2", "-", "\\", "\n", "\ud800", "\x00", "é", "1e999", "..."),
    *("None", "```", _CALL, '{"name": ', '"get_weather"', '"arguments": ', "city", "Rome", "<tool_call>", "f(", ")"),
])  # fmt: skip


@given(st.lists(_PIECES, max_size=30).map("".join) | st.text(max_size=60))
def test_whatever_a_model_writes_there_are_calls_that_fit_or_complaints(text: str) -> None:
    for call in parse_calls(text):
        try:
            name, arguments = repaired(call, TOOLS, {"pay"})
        except ToolError as error:
            assert error.kind in ("malformed_call", "unknown_tool", "invalid_arguments")
        else:
            assert name in ("get_weather", "pay")
            assert isinstance(arguments, dict)


@pytest.mark.parametrize(
    "text", ["[" * 30_000, "{" * 30_000, '{"a":' * 6_000, "(" * 30_000, "[{" * 15_000, '{"' * 15_000]
)
def test_texts_that_are_nothing_but_depth_end_soon(text: str) -> None:
    assert complaint(text)[0] == "malformed_call"


# ---- where calls are made -------------------------------------------------------------------------------------------


class Echo:
    tools = TOOLS
    writes = frozenset({"pay"})

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        if name == "pay":
            raise ToolError("server_error", "no money")
        return json.dumps([name, arguments])


def observed(text: str, source: Any = None, ask: Any = None, repair: bool = True) -> Observation:
    async def run() -> Observation:
        approval = Approval(ask=ask) if ask is not None else Approval(ApprovalPolicy.NEVER)
        prepared = prepare(source or Echo(), parse_calls(text), approval, repair=repair)
        (observation,) = await perform(source or Echo(), prepared, timeout=5)
        return observation

    return asyncio.run(run())


WRONG = '{"name": "Get_Weather", "arguments": {"city": "Rome", "days": "2"}}'


def test_what_was_made_is_recorded_beside_the_observation() -> None:
    observation = observed(WRONG)
    assert json.loads(observation.text) == ["get_weather", ROME]
    assert observation.repaired == ReadyCall("get_weather", ROME, repaired=True)
    failed = observed('{"name": "pay", "arguments": {"amount": "1"}}')
    assert (failed.error, failed.repaired) == ("server_error", ReadyCall("pay", {"amount": 1}, repaired=True))


def test_a_good_call_is_made_as_written_and_nothing_is_recorded() -> None:
    assert observed('{"name": "get_weather", "arguments": {"city": "Rome"}}').repaired is None


def test_nothing_is_repaired_unless_it_is_asked_for() -> None:
    assert observed(WRONG, repair=False).error == "unknown_tool"


def test_a_person_is_asked_for_what_will_be_made() -> None:
    heard: list[Mapping[str, Any]] = []

    def ask(name: str, arguments: Mapping[str, Any]) -> bool:
        heard.append({name: arguments})
        return False

    assert observed('{"name": "PAY", "arguments": {"amount": "1"}}', ask=ask).error == "not_approved"
    assert heard == [{"pay": {"amount": 1}}]


def test_a_call_for_the_client_is_handed_out_as_written_or_not_at_all() -> None:
    class Client(Echo):
        client = frozenset({"get_weather"})

    assert observed('{"name": "get_weather", "arguments": {"city": "Rome"}}', Client()).client
    assert observed('{"name": "get_weather", "arguments": {"city": 3}}', Client()).error == "invalid_arguments"
    assert observed(WRONG, Client()).error == "unknown_tool"
