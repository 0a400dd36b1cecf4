"""LLaMA-Factory's ShareGPT: both of its forms, every record back as it was, nothing guessed about observations."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data.records import RecordError, read_records
from alpha_umi.data.sharegpt import FORMAT, JOINT
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    schema_problem,
)
from tests.data.chats import conversations, read_back, reads_as_written

TOOL = Tool.of("find", "Finds things.", {"type": "object", "properties": {"q": {"type": "string"}}})
CALL = '{"name": "find", "arguments": { "q":1.00}}'
CALLS = f"[{CALL}, {CALL}]"


def record(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    said = [{"from": speaker, "value": value} for speaker, value in (("human", "Find it."), *turns)]
    return {"conversations": said, "tools": f"[{TOOL.schema}]"} | more


def typed(*parts: tuple[str, str], reply: str | None = None) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "value": "Find it."}]},
        {"role": "assistant", "content": [{"type": kind, "value": value} for kind, value in parts]},
    ]
    if reply is not None:
        messages.append({"role": "tool", "content": [{"type": "text", "value": reply}]})
    return {"messages": messages, "tools": f"[{TOOL.schema}]"}


read = partial(read_back, FORMAT)


def turn(given_record: Any) -> AssistantMessage:
    message = read(given_record).messages[1]
    assert isinstance(message, AssistantMessage)
    return message


# ---- the real files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "records", "calls", "observations"),
    [("glaive_toolcall_en_demo.json", 300, 211, 211), ("reason_tool_use_demo_50.jsonl", 50, 68, 48)],
)
def test_every_published_record_is_read_and_comes_back_as_it_was(
    real_data: Path, name: str, records: int, calls: int, observations: int
) -> None:
    path = real_data / "llamafactory-demo" / name
    originals = list(read_records(path))
    assert all(map(FORMAT.looks_like, originals))
    trajectories = [read(original) for original in originals]
    messages = [message for trajectory in trajectories for message in trajectory.messages]
    assert len(trajectories) == records
    assert sum(len(m.tool_calls) for m in messages if isinstance(m, AssistantMessage)) == calls
    assert sum(isinstance(m, ToolMessage) for m in messages) == observations
    assert not any(call.malformed for m in messages if isinstance(m, AssistantMessage) for call in m.tool_calls)
    assert not any(schema_problem(tool.schema) for trajectory in trajectories for tool in trajectory.tools)


def test_the_reasoning_set_has_a_rationale_in_every_turn(real_data: Path) -> None:
    path = real_data / "llamafactory-demo" / "reason_tool_use_demo_50.jsonl"
    turns = [
        m for r in read_records(path) for m in FORMAT.convert_record(r, "r").messages if isinstance(m, AssistantMessage)
    ]
    assert Counter(turn.decision for turn in turns) == {Decision.FINISH: 59, Decision.CALL: 53}
    assert all(turn.reasoning_content for turn in turns)


# ---- turns --------------------------------------------------------------------------------------------------------


def test_a_call_keeps_its_arguments_as_written() -> None:
    (call,) = turn(record(("function_call", CALL), ("observation", "r"))).tool_calls
    assert (call.id, call.name, call.arguments, call.malformed) == ("call_1", "find", '{ "q":1.00}', False)


def test_the_thought_before_a_call_or_an_answer_is_the_rationale() -> None:
    called = turn(record(("function_call", f"<think>\nI look.\n</think>\n\n{CALL}"), ("observation", "r")))
    assert (called.reasoning_content, called.decision, called.extra) == ("I look.", Decision.CALL, {})
    answered = turn(record(("gpt", "<think>Easy.</think>42")))
    assert (answered.reasoning_content, answered.content) == ("Easy.", "42")


def test_text_directly_before_a_call_is_its_rationale() -> None:
    trajectory = read(record(("gpt", "I look."), ("function_call", CALL), ("observation", "r"), ("gpt", "42")))
    assert [m.role for m in trajectory.messages] == ["user", "assistant", "tool", "assistant"]
    called = trajectory.messages[1]
    assert isinstance(called, AssistantMessage) and called.reasoning_content == "I look."


def test_two_thoughts_in_a_row_stay_two_turns() -> None:
    turns = read(record(("gpt", "I look."), ("function_call", f"<think>Hm.</think>{CALL}"))).messages[1:]
    assert [(m.content, m.reasoning_content) for m in turns if isinstance(m, AssistantMessage)] == [
        ("I look.", None),
        (None, "Hm."),
    ]


@pytest.mark.parametrize("reply", [f"a{JOINT}b", '["a", "b"]', '[ {"x": 1.0},\n2]'])
def test_one_observation_of_several_calls_is_divided(reply: str) -> None:
    first, second = read(record(("function_call", CALLS), ("observation", reply))).messages[2:]
    assert isinstance(first, ToolMessage) and isinstance(second, ToolMessage)
    assert (first.tool_call_id, second.tool_call_id) == ("call_1", "call_2")
    assert (first.content, second.content) in (("a", "b"), ('"a"', '"b"'), ('{"x": 1.0}', "2"))


def test_an_observation_for_each_of_several_calls_is_accepted() -> None:
    replies = read(record(("function_call", CALLS), ("observation", "a"), ("observation", "b"))).messages[2:]
    assert [reply.content for reply in replies if isinstance(reply, ToolMessage)] == ["a", "b"]


def test_a_list_that_answers_one_call_stays_whole() -> None:
    reply = read(record(("function_call", CALL), ("observation", '["a", "b"]'))).messages[2]
    assert isinstance(reply, ToolMessage) and reply.content == '["a", "b"]'


@pytest.mark.parametrize("text", ["", "find it", '{"name": "find"}', '{"name": "find", "arguments": [1]}', "[]", "[1]"])
def test_a_malformed_call_keeps_its_observation(text: str) -> None:
    trajectory = read(record(("function_call", text), ("observation", "no")))
    called, reply = trajectory.messages[1:]
    assert isinstance(called, AssistantMessage) and isinstance(reply, ToolMessage)
    assert called.tool_calls[0].malformed and reply.tool_call_id == called.tool_calls[0].id


def test_calls_may_stay_unanswered_and_ids_go_on() -> None:
    messages = read(record(("function_call", CALL), ("human", "Wait."), ("function_call", CALL))).messages
    assert [c.id for m in messages if isinstance(m, AssistantMessage) for c in m.tool_calls] == ["call_1", "call_2"]


def test_the_system_text_is_a_field_or_a_turn() -> None:
    as_field = read(record(("gpt", "42"), system="Be kind."))
    assert as_field.messages[0] == SystemMessage("Be kind.")
    as_turn = record(("gpt", "42"))
    as_turn["conversations"].insert(0, {"from": "system", "value": "Be kind."})
    message = read(as_turn).messages[0]
    assert isinstance(message, SystemMessage) and message.content == "Be kind."


@pytest.mark.parametrize("tools", ["", None, "[]", [], f"[ {TOOL.schema} ]", [TOOL.function], "absent"])
def test_tools_come_back_in_the_form_they_had(tools: Any) -> None:
    given_record = record(("gpt", "42"), tools=tools, images=["a.png"])
    if tools == "absent":
        del given_record["tools"]
    assert len(read(given_record).tools) == (1 if tools and tools not in ("[]", "absent") else 0)


def test_types_in_pythons_words_become_json_schema_and_come_back() -> None:
    parameters = {"type": "dict", "properties": {"n": {"type": "List[int], optional"}, "type": {"type": "str"}}}
    given_record = record(("gpt", "42"), tools=json.dumps([{"name": "find", "parameters": parameters}]))
    assert read(given_record).tools[0].parameters == {
        "type": "object",
        "properties": {"n": {"type": "array", "items": {"type": "integer"}}, "type": {"type": "string"}},
    }


def test_typed_parts_are_rationale_calls_and_text() -> None:
    called = turn(typed(("reasoning", "I look."), ("tool_call", CALL), ("tool_call", CALL), reply='["a", "b"]'))
    assert (called.reasoning_content, len(called.tool_calls)) == ("I look.", 2)
    beside = turn(typed(("text", "I look."), ("tool_call", CALL), reply="a"))
    assert (beside.reasoning_content, beside.content) == ("I look.", None)
    answered = turn(typed(("reasoning", "Easy."), ("text", "42")))
    assert (answered.reasoning_content, answered.content) == ("Easy.", "42")


# ---- writing ------------------------------------------------------------------------------------------------------


def test_a_changed_turn_is_written_anew() -> None:
    trajectory = FORMAT.convert_record(record(("function_call", f"<think>Old.</think>{CALL}")), "r")
    called = trajectory.messages[1]
    assert isinstance(called, AssistantMessage) and FORMAT.write is not None
    changed = replace(called, reasoning_content="New.")
    written = FORMAT.write(replace(trajectory, messages=(trajectory.messages[0], changed)))
    assert written["conversations"][1]["value"] == f"<think>\nNew.\n</think>\n\n{CALL}"


CALLED = AssistantMessage(None, (ToolCall("a", "find", "{}"), ToolCall("b", "find", "{}")))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((), "a conversation without turns"),
        ((AssistantMessage("Hm.", refusal="No."),), "no way to give up"),
        ((AssistantMessage("Hm."),), "decides nothing"),
        ((CALLED, ToolMessage("a", "r")), "don't answer all calls"),
        ((CALLED, ToolMessage("b", "r"), ToolMessage("a", "r")), "don't answer all calls"),
        ((CALLED, ToolMessage("a", JOINT), ToolMessage("b", "r")), "an observation would read back"),
        ((AssistantMessage(None, content="<think>x</think>"),), "a turn would read back"),
        ((AssistantMessage(None, content="I look."), CALLED), "read back as its rationale"),
        ((AssistantMessage(None, (ToolCall("a", "f", "oops"),)),), "a turn would read back"),
    ],
)
def test_what_the_format_cant_carry_is_refused(messages: tuple, reason: str) -> None:
    assert FORMAT.write is not None
    with pytest.raises(RecordError, match=reason):
        FORMAT.write(Trajectory((TOOL,), messages))


WORDS = st.text(max_size=12) | st.sampled_from(["", "<think>", "</think>", "[1, 2]", "\n", JOINT])


@given(conversations(WORDS))
def test_what_is_written_reads_back_as_the_same_words(messages: tuple[Message, ...]) -> None:
    reads_as_written(FORMAT, Trajectory((TOOL,), messages))


# ---- any record ---------------------------------------------------------------------------------------------------


def test_it_recognises_its_own_records_only() -> None:
    assert FORMAT.looks_like(record(("gpt", "42")))
    assert FORMAT.looks_like(typed(("text", "42")))
    assert not FORMAT.looks_like(record(("gpt", "<tool_call>\n{}\n</tool_call>")))
    assert not FORMAT.looks_like({"conversations": [{"from": "user", "value": "x"}], "tools": "[]"})
    assert not FORMAT.looks_like({"messages": [{"role": "user", "content": "x"}], "tools": []})
    assert not FORMAT.looks_like({"messages": [{"role": "user", "content": [{"type": [], "value": "x"}]}]})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"conversations": []}, "conversations: List should have at least 1 item"),
        (record(("robot", "")), r"conversations\[\]\.from: Input should be"),
        (record(("gpt", "42"), tools="oops"), "tools: a string that is not JSON"),
        (record(("gpt", "42"), tools='[{"name": "f", "parameters": {"type": 3}}]'), "no JSON Schema"),
        (record(("observation", "r")), "an observation follows no call"),
        (record(("function_call", CALLS), ("observation", "r")), "not as many as the calls"),
        (record(("function_call", CALL), ("observation", "r"), ("observation", "r")), "not as many as the calls"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["from", "value", "role", "content", "type", "name"]), inner, max_size=3)
    ),
    max_leaves=8,
)
SPEAKERS = st.sampled_from(["human", "gpt", "function_call", "observation", "system"])
VALUES = WORDS | st.sampled_from([CALL, CALLS, f"<think>x</think>{CALL}", f"a{JOINT}b", '{"name": ""}'])
TURNS = st.lists(st.fixed_dictionaries({"from": SPEAKERS, "value": VALUES}), min_size=1, max_size=6)
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "reasoning", "tool_call"]), "value": VALUES}), max_size=3
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": PARTS}),
    min_size=1,
    max_size=5,
)
MORE = {"tools": JSON | st.just(f"[{TOOL.schema}]"), "system": JSON, "id": JSON}


@given(
    JSON
    | st.fixed_dictionaries({"conversations": TURNS | JSON}, optional=MORE)
    | st.fixed_dictionaries({"messages": MESSAGES | JSON}, optional=MORE)
)
def test_any_record_comes_back_as_it_was_or_is_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    assert FORMAT.write is not None
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
        return
    try:
        assert FORMAT.write(trajectory) == anything
    except RecordError as error:
        assert "decides nothing" in str(error) or "without turns" in str(error)
