"""TRL's conversational data: messages with tools, or a prompt and its completion, written again as they came."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import tau_bench
from alpha_umi.data.records import RecordError
from alpha_umi.data.trl import FORMAT
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, UserMessage

LIGHT: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "control_light",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]},
        "return": {"type": "string"},
    },
}
ASKED = {"role": "user", "content": "Turn on the light."}
CALLED = {
    "role": "assistant",
    "tool_calls": [{"type": "function", "function": {"name": "control_light", "arguments": {"room": "hall"}}}],
}
OBSERVED = {"role": "tool", "name": "control_light", "content": "It is on."}
SAID = {"role": "assistant", "content": "Done!"}


def written(trajectory: Trajectory) -> Any:
    assert FORMAT.write is not None
    return FORMAT.write(trajectory)


def converted(value: Any) -> Trajectory:
    trajectory = FORMAT.convert_record(value, "r")
    assert written(Trajectory.from_json(trajectory.to_json())) == value
    return trajectory


@pytest.mark.parametrize("tools", [[LIGHT], json.dumps([LIGHT])])
def test_messages_with_tools_are_a_trajectory(tools: Any) -> None:
    trajectory = converted({"messages": [ASKED, CALLED, OBSERVED, SAID], "tools": tools})
    assert [tool.name for tool in trajectory.tools] == ["control_light"]
    _, called, observed, said = trajectory.messages
    assert isinstance(called, AssistantMessage) and isinstance(observed, ToolMessage)
    assert called.tool_calls == (ToolCall("call_1", "control_light", '{"room": "hall"}'),)
    assert (observed.tool_call_id, observed.content) == ("call_1", "It is on.")
    assert said == AssistantMessage(content="Done!")


@pytest.mark.parametrize("cut", range(5))
def test_prompt_and_completion_are_joined_and_parted_again(cut: int) -> None:
    messages = [ASKED, CALLED, OBSERVED, SAID]
    trajectory = converted({"prompt": messages[:cut], "completion": messages[cut:], "tools": [LIGHT], "label": True})
    assert [message.role for message in trajectory.messages] == ["user", "assistant", "tool", "assistant"]


def test_a_completion_may_end_in_calls() -> None:
    trajectory = converted({"prompt": [ASKED], "completion": [CALLED]})
    assert isinstance(trajectory.messages[-1], AssistantMessage) and trajectory.messages[-1].tool_calls


@pytest.mark.parametrize(
    "message",
    [
        SAID | {"thinking": "It is on."},
        CALLED | {"content": "I switch it on."},
        CALLED | {"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": '{"a":1}'}}]},
        CALLED | {"tool_calls": [{"name": "f", "arguments": {}}]},
        {"role": "assistant", "content": None, "refusal": "I can't."},
    ],
)
def test_other_spellings_of_a_turn_are_kept(message: dict[str, Any]) -> None:
    converted({"messages": [ASKED, message]})


@pytest.mark.parametrize("observed", [{"role": "tool", "content": "on"}, OBSERVED | {"name": "other"}])
def test_an_observation_need_not_name_its_tool(observed: dict[str, Any]) -> None:
    converted({"messages": [ASKED, CALLED, observed]})


def test_what_comes_from_elsewhere_is_written_as_chat_templates_want_it() -> None:
    call = ToolCall("c9", "control_light", '{"room":"hall"}')
    function = {"name": "control_light", "arguments": {"room": "hall"}}
    messages = (UserMessage("On."), AssistantMessage("Hm.", (call,)), ToolMessage("c9", "on"))
    elsewhere = Trajectory((Tool(json.dumps(LIGHT["function"])),), messages, extra={"openai": {"fields": {"n": 1}}})
    assert written(elsewhere) == {
        "tools": [LIGHT],
        "messages": [
            {"role": "user", "content": "On."},
            {
                "role": "assistant",
                "reasoning_content": "Hm.",
                "content": None,
                "tool_calls": [{"id": "c9", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c9", "name": "control_light", "content": "on"},
        ],
    }


def test_real_conversations_keep_the_values_of_their_arguments(real_data: Path) -> None:
    histories = list(tau_bench.FORMAT.convert(real_data / "tau-bench" / "gpt-4o-airline.json"))
    for history in histories[:50]:
        assert isinstance(history, Trajectory)
        record = written(history)
        again = converted(record)
        for before, after in zip(history.messages, again.messages, strict=True):
            if isinstance(before, AssistantMessage):
                assert isinstance(after, AssistantMessage)
                assert [call.parsed() for call in after.tool_calls] == [call.parsed() for call in before.tool_calls]
                assert (after.content, after.reasoning_content) == (before.content, before.reasoning_content)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (3, "Input should be an object"),
        ({}, "neither messages nor a prompt and a completion"),
        ({"prompt": "The sky is", "completion": " blue."}, "neither messages nor a prompt and a completion"),
        ({"prompt": [ASKED]}, "neither messages nor a prompt and a completion"),
        ({"prompt": [], "completion": []}, "messages: List should have at least 1 item"),
        ({"text": "The sky is blue."}, "a record of one text has no turns"),
        ({"prompt": [ASKED], "chosen": [SAID], "rejected": [SAID]}, "preference data holds two conversations"),
        ({"prompt": "x", "completions": ["y"], "labels": [True]}, "stepwise supervision has no turns"),
        ({"messages": [ASKED, OBSERVED]}, "an observation answers no open call"),
    ],
)
def test_a_record_without_one_conversation_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_only_prompt_and_completion_are_recognised() -> None:
    assert FORMAT.looks_like({"prompt": [ASKED], "completion": [CALLED]})
    assert not FORMAT.looks_like({"messages": [ASKED, CALLED], "tools": []})
    assert not FORMAT.looks_like({"prompt": "The sky is", "completion": " blue."})


MESSAGE = st.sampled_from([ASKED, CALLED, OBSERVED, SAID, SAID | {"thinking": "Hm."}, CALLED | {"content": ""}])
MESSAGES = st.lists(MESSAGE, max_size=5)
KEYS = st.sampled_from(["messages", "prompt", "completion", "tools", "role", "content", "tool_calls", "name"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | MESSAGE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


PARTS = {"prompt": MESSAGES | JUNK, "completion": MESSAGES | JUNK}


@given(JUNK | st.fixed_dictionaries(PARTS, optional={"tools": JUNK}))
def test_any_json_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert written(trajectory) == anything
