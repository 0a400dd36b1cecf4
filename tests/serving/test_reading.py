"""What a request asks of the agent."""

from __future__ import annotations

from typing import Any

from alpha_umi.serving.asked import Abilities
from alpha_umi.serving.limits import ServerLimits
from alpha_umi.serving.reading import read_request
from alpha_umi.trajectory import Tool

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather of a city.", "parameters": PARAMETERS}


def tools_of(function: dict[str, Any]) -> tuple[Tool, ...]:
    body = {
        "model": "mine",
        "messages": [{"role": "user", "content": "How is the weather in Bonn?"}],
        "tools": [{"type": "function", "function": function}],
    }
    return read_request(body, Abilities("mine", constrained=True, single=False, own_tools=False), ServerLimits()).tools


def test_a_clients_tools_are_worded_as_those_of_any_other_source():
    wanted = (Tool.of("weather", "The weather of a city.", PARAMETERS),)
    assert tools_of(FUNCTION) == tools_of(dict(reversed(FUNCTION.items()))) == wanted


def test_a_tool_may_have_neither_a_description_nor_parameters():
    (tool,) = tools_of({"name": "now"})
    assert (tool.name, tool.parameters) == ("now", {"type": "object"})


def test_a_tool_may_say_what_it_returns_as_the_tools_of_bfcl_do():
    response = {"type": "dict", "properties": {"degrees": {"type": "float", "description": "In Celsius."}}}
    assert tools_of({**FUNCTION, "response": response}) == tools_of(FUNCTION)
