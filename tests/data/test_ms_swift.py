"""ms-swift's agent data: calls and observations in roles of their own, tools as a string."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import tau_bench
from alpha_umi.data.ms_swift import FORMAT
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

AQI: dict[str, Any] = {"name": "aqi", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOLS = json.dumps([{"type": "function", "function": AQI}])
ASKED = {"role": "user", "content": "How is the air?"}
CALLED = {"role": "tool_call", "content": '{"name": "aqi", "arguments": {"city": "Beijing"}}'}
OBSERVED = {"role": "tool_response", "content": '{"aqi": "10"}'}
SAID = {"role": "assistant", "content": "It is good."}
THOUGHT = {"role": "assistant", "content": "<think>\nI look.\n</think>\n"}


def written(trajectory: Trajectory) -> Any:
    assert FORMAT.write is not None
    return FORMAT.write(trajectory)


def converted(*messages: dict[str, Any], **more: Any) -> tuple[Message, ...]:
    value = {"messages": list(messages)} | more
    trajectory = FORMAT.convert_record(value, "r")
    assert written(Trajectory.from_json(trajectory.to_json())) == value
    return trajectory.messages


def test_calls_in_a_row_are_one_turn_and_their_observations_follow() -> None:
    other = {"role": "tool_call", "content": '{"name": "aqi", "arguments": {"city": "Shanghai"}}'}
    messages = converted(ASKED, CALLED, other, OBSERVED, OBSERVED | {"content": "72"}, SAID, tools=TOOLS)
    calls = (ToolCall("call_1", "aqi", '{"city": "Beijing"}'), ToolCall("call_2", "aqi", '{"city": "Shanghai"}'))
    assert messages == (
        UserMessage("How is the air?"),
        AssistantMessage(tool_calls=calls),
        ToolMessage("call_1", '{"aqi": "10"}'),
        ToolMessage("call_2", "72"),
        AssistantMessage(content="It is good."),
    )


def test_a_call_after_an_observation_is_the_next_turn() -> None:
    messages = converted(ASKED, CALLED, OBSERVED, CALLED, OBSERVED)
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant", "tool"]


@pytest.mark.parametrize(
    ("said", "rationale"),
    [
        ("<think>\nI look.\n</think>\n", "I look."),
        ("<think>\nI look.\n</think>\n\n", "I look."),
        ("<think>I look.</think>", "I look."),
        ("<think>\nHm.\n</think>\n\nI look.", "Hm.\n\nI look."),
        ("I look.", "I look."),
        ("", None),
    ],
)
def test_what_the_assistant_says_before_a_call_is_the_rationale(said: str, rationale: str | None) -> None:
    _, turn, _ = converted(ASKED, {"role": "assistant", "content": said, "loss": 0.5}, CALLED, OBSERVED)
    assert isinstance(turn, AssistantMessage)
    assert turn.reasoning_content == rationale and len(turn.tool_calls) == 1


@pytest.mark.parametrize(
    ("said", "rationale", "content"),
    [
        ("It is good.", None, "It is good."),
        ("", None, ""),
        ("<think>\nHm.\n</think>\n\nIt is good.", "Hm.", "It is good."),
        ("<think>\n\n</think>\n\nIt is good.", "", "It is good."),
        ("<think>Hm.</think> It is good.", "Hm.", " It is good."),
        ("<think>\nHm.\n</think>\n\n", "Hm.", None),
    ],
)
def test_thinking_before_an_answer_is_its_rationale(said: str, rationale: str | None, content: str | None) -> None:
    _, turn = converted(ASKED, {"role": "assistant", "content": said, "loss_scale": 2})
    assert isinstance(turn, AssistantMessage)
    assert (turn.reasoning_content, turn.content) == (rationale, content)


@pytest.mark.parametrize(
    ("content", "arguments", "malformed"),
    [
        ('{"name":"aqi","arguments":{ "n":1.00 }}', '{ "n":1.00 }', False),
        (' {"arguments": {"city": "\\u5317"}, "name": "aqi"}\n', '{"city": "\\u5317"}', False),
        ('{"name": "aqi", "parameters": {}}', "{}", False),
        ('{"name": "aqi", "arguments": "{\\"n\\":1}"}', '{"n":1}', False),
        ('{"name": "aqi", "arguments": "{oops"}', "{oops", True),
        ('{"name": "aqi", "arguments": {}, "id": "x"}', "{}", False),
        ({"name": "aqi", "arguments": {"n": 1}}, '{"n": 1}', False),
        ({"name": "aqi", "arguments": {}, "id": "x"}, "{}", False),
        ("aqi(Beijing)", "aqi(Beijing)", True),
        ('{"name": "aqi"}', '{"name": "aqi"}', True),
        ('{"name": "aqi", "arguments": [1]}', '{"name": "aqi", "arguments": [1]}', True),
        ("[1]", "[1]", True),
    ],
)
def test_arguments_are_kept_verbatim_and_a_bad_call_whole(content: Any, arguments: str, malformed: bool) -> None:
    _, turn, observation = converted(ASKED, {"role": "tool_call", "content": content, "loss": 1}, OBSERVED)
    assert isinstance(turn, AssistantMessage) and isinstance(observation, ToolMessage)
    (call,) = turn.tool_calls
    assert (call.arguments, call.malformed) == (arguments, malformed)
    assert observation.tool_call_id == call.id


@pytest.mark.parametrize("tools", [TOOLS, json.dumps([AQI]), "[ ]", [{"type": "function", "function": AQI}], [], None])
def test_tools_are_written_as_they_came(tools: Any) -> None:
    converted(ASKED, CALLED, {"role": "tool", "content": "10"}, SAID, tools=tools, channel="a")


def test_a_schema_is_kept_verbatim() -> None:
    text = '[{"type":"function","function":{"name":"aqi",  "parameters":{"type":"object"}}}]'
    (tool,) = FORMAT.convert_record({"messages": [ASKED], "tools": text}, "r").tools
    assert tool.schema == '{"name":"aqi",  "parameters":{"type":"object"}}'


def test_what_comes_from_elsewhere_is_written_in_the_usual_form() -> None:
    calls = (ToolCall("a", "aqi", '{"city":"Rome"}'), ToolCall("b", "aqi", "{oops", malformed=True))
    turns = (AssistantMessage("I look.", calls), ToolMessage("a", "1"), ToolMessage("b", "no"))
    elsewhere = Trajectory((Tool(json.dumps(AQI)),), (UserMessage("?"), *turns, AssistantMessage("Hm.", content="1.")))
    assert written(elsewhere) == {
        "tools": TOOLS,
        "messages": [
            {"role": "user", "content": "?"},
            THOUGHT,
            {"role": "tool_call", "content": '{"name": "aqi", "arguments": {"city":"Rome"}}'},
            {"role": "tool_call", "content": '{"name": "aqi", "arguments": "{oops"}'},
            {"role": "tool_response", "content": "1"},
            {"role": "tool_response", "content": "no"},
            {"role": "assistant", "content": "<think>\nHm.\n</think>\n\n1."},
        ],
    }


def test_a_dropped_rationale_is_not_written_again() -> None:
    _, turn, observation = converted(ASKED, {"role": "assistant", "content": "<think>Hm.</think>"}, CALLED, OBSERVED)
    assert isinstance(turn, AssistantMessage)
    bare = AssistantMessage(None, turn.tool_calls, extra=turn.extra)
    assert written(Trajectory((), (bare, observation)))["messages"] == [CALLED, OBSERVED]


def test_real_conversations_are_written_and_read_again(real_data: Path) -> None:
    histories = list(tau_bench.FORMAT.convert(real_data / "tau-bench" / "gpt-4o-airline.json"))
    for history in histories[:50]:
        assert isinstance(history, Trajectory)
        record = written(history)
        again = FORMAT.convert_record(record, "r")
        assert written(again) == record
        assert [tool.schema for tool in again.tools] == [tool.schema for tool in history.tools]


# ---- what can't be read or written --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "user"}]}, r"messages\[\]\.content: Field required"),
        ({"messages": [{"role": "user", "content": [1]}]}, "content: not a text"),
        ({"messages": [CALLED | {"content": None}]}, "content: null"),
        ({"messages": [OBSERVED]}, "an observation answers no call"),
        ({"messages": [CALLED, OBSERVED, OBSERVED]}, "an observation answers no call"),
        ({"messages": [SAID | {"tool_calls": [1]}]}, r"messages\[\]\.tool_calls: Input should be None"),
        ({"messages": [ASKED], "images": ["a.png"]}, "has images, videos or audios"),
        ({"messages": [ASKED], "tools": "[1]"}, "a tool is no function object"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


@pytest.mark.parametrize(
    "messages",
    [
        (AssistantMessage(refusal="I can't."),),
        (AssistantMessage(content="Good."), AssistantMessage(tool_calls=(ToolCall("a", "aqi", "{}"),))),
        (AssistantMessage(content="<think>x</think>y"),),
        (AssistantMessage(),),
        (),
    ],
)
def test_what_would_not_read_back_is_not_written(messages: tuple[Message, ...]) -> None:
    with pytest.raises(RecordError):
        written(Trajectory((), messages))


def test_only_the_formats_own_roles_are_recognised() -> None:
    assert FORMAT.looks_like({"messages": [ASKED, CALLED, OBSERVED]})
    assert not FORMAT.looks_like({"messages": [ASKED, SAID], "tools": TOOLS})
    assert not FORMAT.looks_like({"messages": [ASKED, {"role": "function_call", "content": ""}, CALLED]})


# ---- properties ---------------------------------------------------------------------------------------------------

TEXTS = ["", " ", "x", "Hm.\n", "\nx", "<think>", "</think>", "<think>\nx\n</think>\n\ny"]
TEXT = st.sampled_from(TEXTS) | st.text(max_size=5)


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    messages: list[Message] = []
    for number in range(draw(st.integers(1, 4))):
        rationale = draw(st.none() | TEXT)
        kind = draw(st.sampled_from(["user", "think", "say", "call"]))
        if kind == "user":
            messages.append(UserMessage(draw(TEXT)))
        elif kind == "call":
            written_as = st.sampled_from(["{}", '{"q":1.0}', "{oops", '{"name": "b"}', ""])
            name = draw(st.sampled_from(["", "a"]))
            texts = draw(st.lists(written_as, min_size=1, max_size=3))
            malformed = [not name or text in ("{oops", "") for text in texts]
            calls = tuple(ToolCall(f"{number}-{n}", name, t, malformed[n]) for n, t in enumerate(texts))
            answers = [ToolMessage(call.id, draw(TEXT)) for call in calls]
            messages += [AssistantMessage(rationale, calls), *answers[: draw(st.integers(0, len(answers)))]]
        else:
            messages.append(AssistantMessage(rationale, content=draw(TEXT) if kind == "say" else None))
    return Trajectory((), tuple(messages))


def said(trajectory: Trajectory) -> list[Any]:
    """The messages without the ids, which the format doesn't have."""
    numbers: dict[str, int] = {}
    out: list[Any] = []
    for message in trajectory.messages:
        if isinstance(message, AssistantMessage):
            calls = [(call.name, call.arguments, call.malformed) for call in message.tool_calls]
            out.append((message.reasoning_content, calls, message.content))
            numbers |= {call.id: len(numbers) + place for place, call in enumerate(message.tool_calls)}
        else:
            answers = numbers[message.tool_call_id] if isinstance(message, ToolMessage) else None
            out.append((message.role, message.content, answers))
    return out


@given(trajectories())
def test_what_is_written_reads_back_as_the_same_turns(trajectory: Trajectory) -> None:
    try:
        record = written(trajectory)
    except RecordError:
        return
    again = FORMAT.convert_record(record, "r")
    assert said(again) == said(trajectory)
    assert written(again) == record


KEYS = st.sampled_from(["messages", "tools", "role", "content", "name", "arguments", "function", "loss"])
ROLES = st.sampled_from(["user", "assistant", "tool_call", "tool_response", "tool", "system"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | ROLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries({"role": ROLES, "content": TEXT | JUNK}, optional={"loss": JUNK})
ANY = st.sampled_from([ASKED, CALLED, OBSERVED, SAID, THOUGHT]) | MESSAGE


@given(JUNK | st.fixed_dictionaries({"messages": st.lists(ANY, max_size=6)}, optional={"tools": JUNK, "images": JUNK}))
def test_any_json_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert written(trajectory) == anything
