"""Hermes function calling: tags become fields, the format's own prompt stays out, every record comes back as it was."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data.hermes import FORMAT, PROMPT
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)
from tests.data.chats import comes_back_or_is_rejected, conversations, read_back, reads_as_written, words

FUNCTION = {"name": "find", "description": "Finds things.", "parameters": {"type": "object", "properties": {"q": {}}}}
WRAPPED = {"type": "function", "function": FUNCTION}
TOOL = Tool(json.dumps(FUNCTION))
OPENING = (
    "You are a function calling AI model. You are given function signatures within <tools></tools> XML tags. Tools: "
)
CLOSING = " Return a json object within <tool_call></tool_call> tags as follows:\n<tool_call>\n{...}\n</tool_call>"
CALL = '<tool_call>\n{"name": "find", "arguments": { "q":1.00}}\n</tool_call>'
REPLY = "<tool_response>\n{}\n</tool_response>"


def prompt(tools: str, before: str = "", after: str = "") -> str:
    return f"{before}{OPENING}<tools>\n{tools}\n</tools>{CLOSING}{after}"


def record(*turns: tuple[str, str], system: str | None = None, **more: Any) -> dict[str, Any]:
    said = [{"from": speaker, "value": value} for speaker, value in (("human", "Find it."), *turns)]
    text = prompt(json.dumps([WRAPPED])) if system is None else system
    return {"conversations": [{"from": "system", "value": text}, *said]} | more


read = partial(read_back, FORMAT)


def turn(text: str) -> AssistantMessage:
    message = read(record(("gpt", text))).messages[1]
    assert isinstance(message, AssistantMessage)
    return message


# ---- the system text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tools",
    [
        json.dumps([WRAPPED]),
        json.dumps([FUNCTION], indent=2),
        json.dumps(WRAPPED),
        repr([WRAPPED]),
        repr(WRAPPED),
    ],
)
def test_the_tools_block_is_a_list_or_lines_in_json_or_python(tools: str) -> None:
    trajectory = read(record(("gpt", "42"), system=prompt(tools), id="x", category="y"))
    assert [tool.function for tool in trajectory.tools] == [FUNCTION]
    assert [message.role for message in trajectory.messages] == ["user", "assistant"]
    assert trajectory.extra["hermes"]["record"] == {"id": "x", "category": "y"}


def test_several_tools_stand_one_a_line() -> None:
    lines = f"{json.dumps(WRAPPED)}\n{json.dumps(WRAPPED).replace('find', 'seek')}"
    assert [tool.name for tool in read(record(("gpt", "42"), system=prompt(lines))).tools] == ["find", "seek"]


def test_instructions_around_the_formats_prompt_are_the_system_message() -> None:
    text = prompt(json.dumps(WRAPPED), before="Be kind. ", after="\nBe brief.")
    assert read(record(("gpt", "42"), system=text)).messages[0] == SystemMessage("Be kind.\n\nBe brief.")


def test_a_system_text_without_tools_is_the_system_message() -> None:
    trajectory = read(record(("gpt", "42"), system="Be kind."))
    assert (trajectory.tools, trajectory.messages[0]) == ((), SystemMessage("Be kind."))


def test_tools_beside_the_conversation_are_used_where_the_system_text_has_none() -> None:
    trajectory = read(record(("gpt", "42"), system="Be kind.", tools=json.dumps([WRAPPED])))
    assert [tool.name for tool in trajectory.tools] == ["find"]


# ---- turns --------------------------------------------------------------------------------------------------------


def test_a_call_keeps_its_arguments_as_written() -> None:
    called = turn(CALL)
    (call,) = called.tool_calls
    assert (call.id, call.name, call.arguments, call.malformed) == ("call_1", "find", '{ "q":1.00}', False)
    assert (called.reasoning_content, called.extra) == (None, {})


def test_a_call_may_be_a_python_dictionary() -> None:
    (call,) = turn("<tool_call>\n{'arguments': {'q': True, 'x': None}, 'name': 'find'}\n</tool_call>").tool_calls
    assert (call.name, call.arguments) == ("find", '{"q": true, "x": null}')


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        (f"<think>\nI look.\n</think>\n{CALL}", "I look."),
        (f"<scratch_pad>\nI look.\n</scratch_pad>\n{CALL}", "I look."),
        (f"I look.\n{CALL}\n", "I look."),
        (f"<think>Hm.</think>I look.{CALL}", "Hm.\nI look."),
    ],
)
def test_all_words_beside_calls_are_the_rationale(text: str, rationale: str) -> None:
    called = turn(text)
    assert called.reasoning_content == rationale
    assert [call.name for call in called.tool_calls] == ["find"]


def test_a_thought_before_an_answer_is_its_rationale() -> None:
    answered = turn("<think>\nEasy.\n</think>\n42")
    assert (answered.reasoning_content, answered.content, answered.extra) == ("Easy.", "42", {})


@pytest.mark.parametrize("block", [f"{CALL}\n{CALL}", CALL.replace("\n</", '\n{"name": "find", "arguments": {}}\n</')])
def test_several_calls_are_several_blocks_or_lines(block: str) -> None:
    assert [call.id for call in turn(block).tool_calls] == ["call_1", "call_2"]


@pytest.mark.parametrize("text", ["oops", "{'name': 'find'}", '{"name": "find", "arguments": 3}', ""])
def test_a_malformed_call_keeps_its_text_and_its_observation(text: str) -> None:
    trajectory = read(
        record(("gpt", f"<tool_call>\n{text}\n</tool_call>"), ("tool", "<tool_response>no</tool_response>"))
    )
    called, reply = trajectory.messages[1:]
    assert isinstance(called, AssistantMessage) and isinstance(reply, ToolMessage)
    assert (called.tool_calls[0].arguments, called.tool_calls[0].malformed) == (text, True)
    assert reply.content == "no"


def test_a_call_that_was_cut_off_is_read_to_its_end() -> None:
    (call,) = turn('<tool_call>\n{"name": "find", "argu').tool_calls
    assert call.malformed and call.arguments == '{"name": "find", "argu'


@pytest.mark.parametrize(
    "replies",
    [
        [f"{REPLY.format('a')}\n{REPLY.format('b')}"],
        [REPLY.format("a"), f"{REPLY.format('b')}\n"],
        ["a", "b"],
    ],
)
def test_observations_answer_the_calls_in_order(replies: list[str]) -> None:
    turns = [("gpt", f"{CALL}\n{CALL}"), *(("tool", reply) for reply in replies), ("gpt", "42")]
    found = [m for m in read(record(*turns)).messages if isinstance(m, ToolMessage)]
    assert [(m.tool_call_id, m.content) for m in found] == [("call_1", "a"), ("call_2", "b")]


# ---- writing ------------------------------------------------------------------------------------------------------


def test_a_trajectory_from_elsewhere_gets_the_usual_prompt() -> None:
    assert FORMAT.write is not None
    called = AssistantMessage("I look.", (ToolCall("a", "find", "{}"),))
    messages = (SystemMessage("Be kind."), UserMessage("Find it."), called, ToolMessage("a", "r"))
    written = FORMAT.write(Trajectory((TOOL,), messages))
    system, _, text, reply = [turn["value"] for turn in written["conversations"]]
    tools = json.dumps({"type": "function", "function": FUNCTION})
    assert system == "Be kind.\n\n" + PROMPT.format(tools=tools)
    assert text == '<think>\nI look.\n</think>\n<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>'
    assert reply == REPLY.format("r")
    assert words(FORMAT.convert_record(written, "r").messages) == words(messages)


def test_other_tools_replace_the_prompt_and_the_list_beside_it() -> None:
    assert FORMAT.write is not None
    trajectory = FORMAT.convert_record(record(("gpt", "42"), tools=json.dumps([WRAPPED])), "r")
    other = Tool.of("seek", "", {"type": "object", "properties": {}})
    written = FORMAT.write(replace(trajectory, tools=(other,)))
    assert "tools" not in written
    assert [tool.name for tool in FORMAT.convert_record(written, "r").tools] == ["seek"]


CALLED = AssistantMessage(None, (ToolCall("a", "find", "{}"), ToolCall("b", "find", "{}")))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((AssistantMessage("Hm.", refusal="No."),), "no way to give up"),
        ((AssistantMessage("Hm."),), "decides nothing"),
        ((CALLED, ToolMessage("b", "r"), ToolMessage("a", "r")), "don't answer all calls"),
        ((CALLED, ToolMessage("a", "</tool_response>"), ToolMessage("b", "r")), "an observation would read back"),
        ((AssistantMessage(None, content=CALL),), "a turn would read back"),
        ((AssistantMessage("</think>", content="42"),), "a turn would read back"),
        ((SystemMessage("You are a function calling AI model, be kind."),), "the system message would read back"),
    ],
)
def test_what_the_format_cant_carry_is_refused(messages: tuple, reason: str) -> None:
    assert FORMAT.write is not None
    with pytest.raises(RecordError, match=reason):
        FORMAT.write(Trajectory((TOOL,), messages))


TAGS = ["", "<think>", "</think>", "<tool_call>", "</tool_call>", "</tool_response>", "<tools>[", "\n", "</tools>"]
WORDS = st.text(max_size=12) | st.sampled_from(TAGS)


@given(conversations(WORDS, system=True))
def test_what_is_written_reads_back_as_the_same_words(messages: tuple[Message, ...]) -> None:
    reads_as_written(FORMAT, Trajectory((TOOL,), messages))


# ---- any record ---------------------------------------------------------------------------------------------------


def test_it_recognises_its_own_records_only() -> None:
    assert FORMAT.looks_like(record(("gpt", "42")))
    assert FORMAT.looks_like({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": CALL}]})
    assert not FORMAT.looks_like({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]})
    assert not FORMAT.looks_like({"conversations": [{"from": "function_call", "value": CALL}]})
    assert not FORMAT.looks_like({"messages": [{"role": "assistant", "content": CALL}]})


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"conversations": []}, "conversations: List should have at least 1 item"),
        (record(("caller", "")), r"conversations\[\]\.from: Input should be"),
        (record(system=prompt("[oops]")), "<tools> block holds no list of functions"),
        (record(system=prompt('[{"name": ""}]')), "a tool is no function object"),
        (record(("tool", "r")), "a tool turn follows no call"),
        (record(("gpt", f"{CALL}{CALL}"), ("tool", REPLY)), "not as many as the calls"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["from", "value", "name"]), inner, max_size=3)
    ),
    max_leaves=8,
)
VALUES = st.lists(WORDS | st.sampled_from([CALL, REPLY, prompt(json.dumps([WRAPPED])), "42"]), max_size=3).map("".join)
TURNS = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(["system", "human", "gpt", "tool"]), "value": VALUES}),
    min_size=1,
    max_size=6,
)


@given(
    JSON
    | st.fixed_dictionaries(
        {"conversations": TURNS | JSON}, optional={"tools": JSON | st.just(json.dumps([WRAPPED])), "id": JSON}
    )
)
def test_any_record_comes_back_as_it_was_or_is_rejected(anything: Any) -> None:
    comes_back_or_is_rejected(FORMAT, anything)
