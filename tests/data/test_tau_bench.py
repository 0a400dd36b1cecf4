"""tau-bench's histories: OpenAI messages with a reward, and the tools that a file's calls show."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data.format import Options
from alpha_umi.data.records import RecordError, Rejected
from alpha_umi.data.tau_bench import FORMAT
from alpha_umi.errors import DataError
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage


def called(name: str, arguments: str, call_id: str = "c1", content: str | None = None) -> dict[str, Any]:
    call = {"function": {"name": name, "arguments": arguments}, "id": call_id, "type": "function"}
    return {"content": content, "role": "assistant", "tool_calls": [call]}


def observed(name: str, content: str, call_id: str = "c1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": content}


def history(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "Book it."}, *turns]
    return {"task_id": 3, "reward": 1.0, "info": {"source": "user"}, "traj": said, "trial": 0} | more


BOOK = history(called("book", '{"n":1, "to": "JFK"}', content="I book."), observed("book", "done"))


def parameters(trajectory: Trajectory) -> dict[str, Any]:
    return {tool.name: tool.parameters for tool in trajectory.tools}


# ---- the real files -----------------------------------------------------------------------------------------------


def test_all_200_histories_are_converted_with_one_list_of_tools(real_data: Path) -> None:
    converted = list(FORMAT.convert(real_data / "tau-bench" / "gpt-4o-airline.json"))
    trajectories = [one for one in converted if isinstance(one, Trajectory)]
    assert len(converted) == len(trajectories) == 200
    turns = [m for t in trajectories for m in t.messages if isinstance(m, AssistantMessage)]
    calls = [call for turn in turns for call in turn.tool_calls]
    assert len(calls) == 1164 and not any(call.malformed for call in calls)
    assert sum(bool(turn.tool_calls) and turn.reasoning_content is not None for turn in turns) == 90
    assert sum(t.extra["tau-bench"]["reward"] == 1.0 for t in trajectories) == 84
    tools = trajectories[0].tools
    assert all(trajectory.tools == tools for trajectory in trajectories)
    assert [tool.name for tool in tools] == sorted({call.name for call in calls})
    assert Counter(t.messages[-1].role for t in trajectories) == {"user": 149, "tool": 51}


def test_of_the_few_shot_dialogues_only_the_one_without_calls_is_left(real_data: Path) -> None:
    converted = list(FORMAT.convert(real_data / "tau-bench" / "MockAirlineDomainEnv-few_shot.jsonl"))
    reasons = Counter(one.reason for one in converted if isinstance(one, Rejected))
    assert reasons == {"messages_display: its calls are lost, only their results are left": 18}
    assert len(converted) == 19


# ---- records ------------------------------------------------------------------------------------------------------


def test_a_history_is_a_trajectory_with_its_task_in_extra() -> None:
    trajectory = FORMAT.convert_record(BOOK, "r")
    user, turn, observation = trajectory.messages
    assert user == UserMessage("Book it.")
    assert isinstance(turn, AssistantMessage) and isinstance(observation, ToolMessage)
    assert turn.reasoning_content == "I book."
    assert turn.tool_calls[0].arguments == '{"n":1, "to": "JFK"}'
    assert observation.extra == {"tau-bench": {"fields": {"name": "book"}}}
    assert trajectory.extra == {"tau-bench": {"task_id": 3, "reward": 1.0, "info": {"source": "user"}, "trial": 0}}
    assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_tools_are_inferred_from_all_calls_of_the_file(tmp_path: Path) -> None:
    other = history(called("book", '{"n": 1.5, "via": null, "on": true}'), observed("book", ""))
    broken = history(called("cancel", "{oops"), observed("cancel", "no"))
    path = tmp_path / "histories.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (BOOK, other, broken, {"traj": 3})))
    trajectories = [one for one in FORMAT.convert(path) if isinstance(one, Trajectory)]
    kinds = {"n": {"type": "number"}, "to": {"type": "string"}, "via": {"type": "null"}, "on": {"type": "boolean"}}
    expected = {"book": {"type": "object", "properties": kinds, "required": ["n"]}}
    assert [parameters(one) for one in trajectories] == [expected] * 3
    assert parameters(FORMAT.convert_record(BOOK, "r"))["book"]["required"] == ["n", "to"]


def test_a_value_of_several_types_has_all_of_them() -> None:
    turns = [called("f", json.dumps({"a": value})) for value in ("x", 1, 2.0, [])]
    properties = parameters(FORMAT.convert_record(history(*turns), "r"))["f"]["properties"]
    assert properties == {"a": {"type": ["array", "number", "string"]}}


def test_documented_tools_take_the_place_of_inferred_ones(tmp_path: Path) -> None:
    documents, path = tmp_path / "tools.json", tmp_path / "histories.json"
    documents.write_text(json.dumps([{"type": "function", "function": {"name": "book", "description": "Books."}}]))
    path.write_text(json.dumps([BOOK]))
    (trajectory,) = FORMAT.convert(path, Options(tools=documents))
    assert isinstance(trajectory, Trajectory)
    assert [tool.description for tool in trajectory.tools] == ["Books."]
    documents.write_text('[{"type": "function"}]')
    with pytest.raises(DataError, match="tool 0: a tool is no function object"):
        list(FORMAT.convert(path, Options(tools=documents)))


def test_a_records_own_tools_go_first() -> None:
    assert [tool.name for tool in FORMAT.convert_record(BOOK | {"tools": [{"name": "own"}]}, "r").tools] == ["own"]


def test_a_dialogue_without_calls_is_split_into_turns() -> None:
    text = "user: Hi.\nPlease help.\nassistant: How?\n\nSay more.\nuser: No."
    messages = FORMAT.convert_record({"messages_display": text}, "r").messages
    assert messages == (
        UserMessage("Hi.\nPlease help."), AssistantMessage(content="How?\n\nSay more."), UserMessage("No."),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ([], "Input should be an object"),
        ({"task_id": 1, "traj": []}, "traj: List should have at least 1 item"),
        ({"traj": [{"role": "user", "content": ""}]}, "task_id: Field required"),
        (history(observed("book", "")), "an observation answers no open call"),
        ({"messages_display": 3}, "messages_display: not a text"),
        ({"messages_display": "Hi."}, "doesn't begin with a turn"),
        ({"messages_display": "user: Hi.\nassistant: None\ntool: x"}, "its calls are lost"),
        ({"messages_display": "system: Hi."}, "a turn of neither"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


KEYS = st.sampled_from(["task_id", "traj", "tools", "reward", "role", "content", "tool_calls", "messages_display"])
JUNK = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["user: a\nassistant: b", "tool"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(JUNK | st.fixed_dictionaries({"task_id": JUNK, "traj": JUNK, "reward": JUNK}, optional={"tools": JUNK}))
def test_any_json_is_converted_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert Trajectory.from_json(trajectory.to_json()) == trajectory
