"""ToolTalk's conversations: every API call is a turn of its own, then the text."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data.format import Options
from alpha_umi.data.records import RecordError
from alpha_umi.data.tooltalk import FORMAT
from alpha_umi.trajectory import AssistantMessage, SystemMessage, ToolCall, ToolMessage, Trajectory, UserMessage


def api(name: str, response: Any = None, exception: str | None = None, **parameters: Any) -> dict[str, Any]:
    return {"request": {"api_name": name, "parameters": parameters}, "response": response, "exception": exception}


def conversation(*apis: dict[str, Any], **more: Any) -> dict[str, Any]:
    turns = [{"index": 0, "role": "user", "text": "Wake me."}, {"role": "assistant", "text": "Done.", "apis": [*apis]}]
    used = sorted({one["request"]["api_name"] for one in apis})
    return {
        "name": "Alarm-1",
        "suites_used": ["Alarm"],
        "apis_used": used,
        "metadata": {"location": "Rome", "username": "ada"},
        "conversation": turns,
    } | more


# ---- the real files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "count"), [("", 78), ("easy", 28), ("tooltalk", 50)])
def test_every_conversation_is_converted(real_data: Path, folder: str, count: int) -> None:
    trajectories = list(FORMAT.convert(real_data / "tooltalk" / folder))
    assert len({one.id for one in trajectories if isinstance(one, Trajectory)}) == len(trajectories) == count


def test_the_conversations_have_266_calls_and_one_exception(real_data: Path) -> None:
    trajectories = [one for one in FORMAT.convert(real_data / "tooltalk") if isinstance(one, Trajectory)]
    turns = [m for t in trajectories for m in t.messages if isinstance(m, AssistantMessage)]
    assert sum(len(turn.tool_calls) for turn in turns) == 266
    assert sum(turn.content is not None for turn in turns) == 230
    observations = [m for t in trajectories for m in t.messages if isinstance(m, ToolMessage)]
    assert [one.content for one in observations if one.extra] == ["The password is incorrect."]
    for trajectory in trajectories:
        assert {call.name for m in trajectory.messages if isinstance(m, AssistantMessage) for call in m.tool_calls} == {
            tool.name for tool in trajectory.tools
        }
        assert Trajectory.from_json(trajectory.to_json()) == trajectory


# ---- records ------------------------------------------------------------------------------------------------------


def test_calls_are_made_one_after_the_other_before_the_text() -> None:
    record = conversation(api("Find", {"id": "ü"}, q="x"), api("Delete", None, "No such alarm.", id="ü"))
    trajectory = FORMAT.convert_record(record, "r")
    assert trajectory.id == "Alarm-1"
    assert trajectory.messages == (
        SystemMessage("location: Rome\nusername: ada"),
        UserMessage("Wake me."),
        AssistantMessage(tool_calls=(ToolCall("call_1", "Find", '{"q": "x"}'),)),
        ToolMessage("call_1", '{"id": "ü"}'),
        AssistantMessage(tool_calls=(ToolCall("call_2", "Delete", '{"id": "ü"}'),)),
        ToolMessage("call_2", "No such alarm.", {"tooltalk": {"exception": True}}),
        AssistantMessage(content="Done."),
    )
    fields = {key: value for key, value in record.items() if key != "conversation"}
    assert trajectory.extra == {"tooltalk": fields}


def test_tools_are_those_the_conversation_names() -> None:
    record = conversation(api("Find", {}, q="x"), api("Find", {}, q="y", page=2), apis_used=["Find", "Delete"])
    delete, find = FORMAT.convert_record(record, "r").tools
    assert (delete.name, delete.parameters) == ("Delete", {"type": "object", "properties": {}})
    properties = {"q": {"type": "string"}, "page": {"type": "integer"}}
    assert find.parameters == {"type": "object", "properties": properties, "required": ["q"]}
    assert find.extra == {"tooltalk": {"inferred": True}}


def test_documented_tools_take_the_place_of_inferred_ones(tmp_path: Path) -> None:
    documents = tmp_path / "documents" / "tools.json"
    documents.parent.mkdir()
    documents.write_text(json.dumps([{"name": name, "description": f"{name}s."} for name in ("Find", "Other")]))
    path = tmp_path / "conversation.json"
    path.write_text(json.dumps(conversation(api("Find", {}))))
    (trajectory,) = FORMAT.convert(path, Options(tools=documents))
    assert isinstance(trajectory, Trajectory)
    assert [tool.description for tool in trajectory.tools] == ["Finds."]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (3, "Input should be an object"),
        ({"conversation": []}, "name: Field required"),
        (conversation(conversation=[]), "conversation: List should have at least 1 item"),
        (conversation(conversation=[{"role": "user", "text": "", "apis": [api("a")]}]), "the user makes a call"),
        (conversation(conversation=[{"role": "tool", "text": ""}]), r"conversation\[\]\.role: Input should be"),
        (conversation(api("")), r"conversation\[\]\.apis\[\]\.request\.api_name: String should have at least 1"),
        (conversation(api("a") | {"more": 1}), r"apis\[\]\.more: Extra inputs are not permitted"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_databases_are_not_taken_for_conversations() -> None:
    assert FORMAT.looks_like(conversation())
    assert not FORMAT.looks_like({"justinkool": {"username": "justinkool"}})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "text", "apis"]), inner),
    max_leaves=6,
)
APIS = st.lists(st.builds(api, st.text(max_size=2), JUNK, st.none() | st.text(max_size=3), x=JUNK) | JUNK, max_size=2)
ROLES = st.sampled_from(["user", "assistant"])
TURN = st.fixed_dictionaries({"role": ROLES, "text": st.text(max_size=4)}, optional={"apis": APIS})
TURNS = st.lists(TURN, max_size=3)
CHANGES = st.fixed_dictionaries({"conversation": TURNS | JUNK}, optional={"apis_used": JUNK, "metadata": JUNK})


@given(JUNK | CHANGES.map(lambda more: conversation(**more)))
def test_any_json_is_converted_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        said = [message.content for message in trajectory.messages if isinstance(message, UserMessage)]
        assert said == [turn["text"] for turn in anything["conversation"] if turn["role"] == "user"]
