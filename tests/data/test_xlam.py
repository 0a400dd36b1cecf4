"""xLAM: a query and its calls; tools in Python's words become JSON Schema; every record comes back as it was."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data.records import RecordError
from alpha_umi.data.xlam import FORMAT
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, UserMessage, schema_problem
from tests.data.chats import comes_back_or_is_rejected, read_back

PARAMETERS = {
    "q": {"type": "str", "description": "Words."},
    "tags": {"type": "List[str], optional", "description": ""},
    "page": {"type": "int", "description": "The page.", "default": 1},
    "odd": {"type": "colour", "description": "A shade.", "default": ""},
}
FIND = {"name": "find", "description": "Finds things.", "parameters": PARAMETERS}
CALLS = [{"name": "find", "arguments": {"q": "a"}}, {"name": "find", "arguments": {"q": "b", "page": 2}}]
SCHEMA = {"name": "find", "description": "", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}


def record(tools: Any = FIND, answers: Any = CALLS, **more: Any) -> dict[str, Any]:
    tools = json.dumps([tools]) if isinstance(tools, dict) else tools
    return {"query": "Find it.", "tools": tools, "answers": json.dumps(answers), **more}


read = partial(read_back, FORMAT)


def test_the_trajectory_ends_in_one_turn_with_all_the_calls() -> None:
    trajectory = read(record(id=7))
    asked, called = trajectory.messages
    assert asked == UserMessage("Find it.")
    assert isinstance(called, AssistantMessage) and called.reasoning_content is None
    assert [(c.id, c.name, c.parsed()) for c in called.tool_calls] == [
        ("call_1", "find", {"q": "a"}),
        ("call_2", "find", {"q": "b", "page": 2}),
    ]
    assert trajectory.extra == {"xlam": {"record": {"id": 7}}}


def test_a_parameter_is_required_unless_it_is_optional_or_has_a_default() -> None:
    (tool,) = read(record()).tools
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "q": {"type": "string", "description": "Words."},
            "tags": {"type": "array", "items": {"type": "string"}},
            "page": {"type": "integer", "description": "The page.", "default": 1},
            "odd": {"description": "A shade."},
        },
        "required": ["q"],
    }
    assert schema_problem(tool.schema) is None


@pytest.mark.parametrize("tools", [SCHEMA, {"type": "function", "function": SCHEMA}])
def test_a_json_schema_stays_as_it_is(tools: dict[str, Any]) -> None:
    assert read(record(tools)).tools[0].function == SCHEMA


def test_tools_and_answers_may_be_lists() -> None:
    given_record = record([FIND]) | {"answers": CALLS}
    assert read(given_record).messages == read(record()).messages


def test_arguments_in_a_text_stay_as_written() -> None:
    called = read(record() | {"answers": '[ {"name":"find","arguments":{ "q":1.00}} ]'}).messages[1]
    assert isinstance(called, AssistantMessage)
    assert called.tool_calls[0].arguments == '{ "q":1.00}'


def test_a_malformed_call_keeps_its_text() -> None:
    called = read(record(answers=[{"name": "find"}])).messages[1]
    assert isinstance(called, AssistantMessage)
    assert (called.tool_calls[0].arguments, called.tool_calls[0].malformed) == ('{"name": "find"}', True)


def test_changed_calls_and_tools_are_written_anew() -> None:
    assert FORMAT.write is not None
    other = Tool(json.dumps(SCHEMA))
    messages = (UserMessage("Find it."), AssistantMessage(tool_calls=(ToolCall("x", "find", "{}"),)))
    written = FORMAT.write(replace(read(record([FIND])), tools=(other,), messages=messages))
    assert json.loads(written["tools"]) == [SCHEMA]
    assert json.loads(written["answers"]) == [{"name": "find", "arguments": {}}]


@pytest.mark.parametrize(
    "messages",
    [
        (UserMessage("x"), AssistantMessage(content="42")),
        (UserMessage("x"), AssistantMessage("Hm.", (ToolCall("a", "f", "{}"),))),
        (UserMessage("x"), AssistantMessage(None, (ToolCall("a", "f", "{}"),)), ToolMessage("a", "r")),
    ],
)
def test_more_than_a_query_and_its_calls_is_refused(messages: tuple) -> None:
    assert FORMAT.write is not None
    with pytest.raises(RecordError, match="one user turn and one turn of calls"):
        FORMAT.write(Trajectory((), messages))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"query": "x", "tools": "[]"}, "answers: Field required"),
        (record(answers=[]), "no call"),
        (record(tools="oops"), "tools: not a JSON array"),
        (record(tools='[{"name": ""}]'), "name: String should have at least 1 character"),
        (record() | {"answers": "{}"}, "answers: not a JSON array"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_it_recognises_its_own_records_only() -> None:
    assert FORMAT.looks_like(record())
    assert not FORMAT.looks_like({"query": "x", "tool list": [], "final_answer": ""})
    assert not FORMAT.looks_like({"query": "x", "calling": []})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "parameters", "arguments", "type", "function", "default"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
LISTS = st.lists(st.sampled_from([*CALLS, FIND, SCHEMA, {"type": "function", "function": SCHEMA}]) | JSON, max_size=3)
FIELD = LISTS | LISTS.map(json.dumps) | JSON


@given(JSON | st.fixed_dictionaries({"query": st.just("x"), "tools": FIELD, "answers": FIELD}, optional={"id": JSON}))
def test_any_record_comes_back_as_it_was_or_is_rejected(anything: Any) -> None:
    comes_back_or_is_rejected(FORMAT, anything)
