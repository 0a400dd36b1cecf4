"""Every mistake of a model and every failure of a tool becomes an observation that says what to do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from alpha_umi.errors import ToolError
from alpha_umi.tools import Observation, ToolWorldSource, execute
from alpha_umi.toolworld import fault_text
from alpha_umi.trajectory import Tool, ToolCall

WEATHER = Tool.of(
    "get_weather",
    "Weather of a city.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1},
            "units": {"enum": ["metric", "imperial"]},
            "hours": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["city"],
    },
)
NOTHING = Tool('{"name": "ping"}')
OPEN = Tool.of("open", "", {"type": "object", "additionalProperties": {"type": "integer"}})
COMPOSED = Tool.of("composed", "", {"anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}]})
BROKEN = Tool.of("broken", "", {"type": "objekt", "properties": {"x": {"type": "dict", "$ref": "http://nowhere/x"}}})


class Echo:
    """Replies with its arguments, or does what a test tells it to."""

    tools = (WEATHER, NOTHING, OPEN, COMPOSED, BROKEN)

    def __init__(self, error: Exception | None = None, wait: bool = False) -> None:
        self.error = error
        self.wait = wait
        self.made: list[str] = []

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        self.made.append(name)
        if self.wait:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return json.dumps(arguments)


def run(source: Echo, name: str, arguments: str, malformed: bool = False, timeout: float = 5) -> Observation:
    return asyncio.run(execute(source, ToolCall("call_0", name, arguments, malformed), timeout=timeout))


def test_a_good_call_is_made_and_its_reply_is_the_observation() -> None:
    assert run(Echo(), "get_weather", '{"city": "Paris", "days": 2}') == Observation('{"city": "Paris", "days": 2}')
    assert run(Echo(), "ping", "{}") == Observation("{}")


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "words"),
    [
        ("get_wether", "{}", "unknown_tool", "did you mean 'get_weather'?"),
        ("zzz", "{}", "unknown_tool", "the tools are get_weather, ping"),
        ("", "{}", "unknown_tool", "the tools are"),
        ("get_weather", "[]", "invalid_arguments", "one JSON object"),
        ("get_weather", '{"city": ', "invalid_arguments", "one JSON object"),
        ("get_weather", '"Paris"', "invalid_arguments", "one JSON object"),
        ("get_weather", "{}", "invalid_arguments", "'city' is required"),
        ("get_weather", '{"city": 3}', "invalid_arguments", "city: 3 is not of type 'string'"),
        ("get_weather", '{"city": "P", "days": "2"}', "invalid_arguments", "days: '2' is not of type 'integer'"),
        ("get_weather", '{"city": "P", "days": 0}', "invalid_arguments", "days: 0 is less than"),
        ("get_weather", '{"city": "P", "units": "x"}', "invalid_arguments", "units: 'x' is not one of"),
        ("get_weather", '{"city": "P", "hours": [1, "b"]}', "invalid_arguments", "hours.1: 'b' is not of type"),
        ("get_weather", '{"city": "P", "day": 2}', "invalid_arguments", "no parameter 'day'; did you mean 'days'?"),
        ("get_weather", '{"city": "P", "qqqq": 2}', "invalid_arguments", "the parameters are city, days"),
        ("ping", '{"x": 1}', "invalid_arguments", "the parameters are none"),
        ("open", '{"anything": "x"}', "invalid_arguments", "anything: 'x' is not of type 'integer'"),
        ("composed", "{}", "invalid_arguments", "is not valid under any"),
    ],
)
def test_a_call_that_cannot_be_made_is_answered_and_not_made(name: str, arguments: str, kind: str, words: str) -> None:
    source = Echo()
    observation = run(source, name, arguments)
    assert observation.error == kind
    assert words in json.loads(observation.text)["error"]
    assert json.loads(observation.text)["error"].startswith(f"{kind}: ")
    assert source.made == []


def test_text_that_is_no_call_is_answered_with_the_form_of_one() -> None:
    observation = run(Echo(), "get_weather", "get_weather(Paris)", malformed=True)
    assert observation.error == "malformed_call"
    assert '{"name": "...", "arguments": {...}}' in json.loads(observation.text)["error"]


def test_a_tool_whose_schema_allows_more_takes_more() -> None:
    assert run(Echo(), "open", '{"anything": 3}').error is None
    assert run(Echo(), "composed", '{"a": "x"}').error is None


def test_a_tool_whose_own_schema_is_broken_can_still_be_called() -> None:
    assert run(Echo(), "broken", '{"x": 1}').error is None


def test_a_tool_that_does_not_reply_in_time_is_a_timeout() -> None:
    observation = run(Echo(wait=True), "ping", "{}", timeout=0.01)
    assert observation == Observation('{"error": "timeout: no reply within 0.01 seconds"}', "timeout")


def test_a_tools_own_error_reads_as_it_does_in_the_tool_world() -> None:
    error = ToolError("server_error", "internal error 500")
    assert run(Echo(error), "ping", "{}") == Observation(fault_text(error), "server_error")


def test_what_is_neither_the_models_nor_the_tools_mistake_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        run(Echo(ZeroDivisionError()), "ping", "{}")


def test_a_tool_that_the_agent_was_not_shown_is_unknown() -> None:
    call = ToolCall("call_0", "ping", "{}")
    assert asyncio.run(execute(Echo(), call, timeout=1, tools=(WEATHER,))).error == "unknown_tool"


def test_calls_of_a_world_happen_in_the_order_of_the_turn() -> None:
    class Log:
        tools = (NOTHING,)
        made: list[str] = []  # noqa: RUF012

        def call(self, name: str, arguments: object) -> str:
            self.made.append(str(arguments))
            return "{}"

    source = ToolWorldSource(Log())

    async def both() -> None:
        await asyncio.gather(*(source.call("ping", {"n": n}) for n in range(20)))

    asyncio.run(both())
    assert Log.made == [str({"n": n}) for n in range(20)]
