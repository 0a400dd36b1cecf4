"""The α-UMi format: every turn in its place, nothing lost, bad records rejected with a reason."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected, convert
from alpha_umi.data.alpha_umi import FORMAT, GIVE_UP_TEXT, caller_text, planner_text, write
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    Message,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

TOOL = {"Name": "find", "function": "Finds things.", "input": {"page": "integer, The page", "q": "string, "}}


def record(*turns: tuple[str, str], tools: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    said = [{"from": speaker, "value": value} for speaker, value in (("user", "Find it."), *turns)]
    return {"tools": [TOOL] if tools is None else tools, "instruction": "Find it.", "conversations": said} | more


def only_turn(*turns: tuple[str, str]) -> AssistantMessage:
    turn = FORMAT.convert_record(record(*turns), "r").messages[1]
    assert isinstance(turn, AssistantMessage)
    return turn


# ---- the real files -----------------------------------------------------------------------------------------------


def trajectories(path: Path) -> list[Trajectory]:
    converted = list(convert(path, "alpha-umi"))
    assert not any(isinstance(item, Rejected) for item in converted)
    return [item for item in converted if isinstance(item, Trajectory)]


def test_the_test_file_has_728_scored_steps_of_which_528_call(real_data: Path) -> None:
    converted = trajectories(real_data / "alpha-umi" / "test_out_of_domain_a.json")
    assert len(converted) == 200
    turns = [m for t in converted for m in t.messages if isinstance(m, AssistantMessage)]
    decisions = Counter(turn.decision for turn in turns)
    assert decisions == {Decision.CALL: 528, Decision.FINISH: 135, Decision.GIVE_UP: 65, None: 52}
    assert sum(turn.decision is not None for turn in turns) == 728
    assert all(len(turn.tool_calls) == 1 and not turn.tool_calls[0].malformed for turn in turns if turn.tool_calls)


@pytest.mark.parametrize("name", ["raw_data_stage_2.json", "test_out_of_domain_a.json"])
def test_the_published_records_can_be_rebuilt_exactly(real_data: Path, name: str) -> None:
    path = real_data / "alpha-umi" / name
    originals = json.loads(path.read_text(encoding="utf-8"))
    for original, trajectory in zip(originals, trajectories(path), strict=True):
        assert json.dumps(write(trajectory)) == json.dumps(original)
        assert trajectory.instruction == original["instruction"]
        assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_the_training_sample_has_its_59_calls_14_answers_and_6_refusals(real_data: Path) -> None:
    converted = trajectories(real_data / "alpha-umi" / "raw_data_stage_2.json")
    decisions = Counter(m.decision for t in converted for m in t.messages if isinstance(m, AssistantMessage))
    assert decisions == {Decision.CALL: 59, Decision.FINISH: 14, Decision.GIVE_UP: 6}


# ---- turns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [" Next: caller.", "\n Next: caller.", "\n\nNext: Caller", "Next: caller. \n"])
def test_the_rationale_is_the_planners_text_before_its_decision(ending: str) -> None:
    turn = only_turn(
        ("assistant", "I look." + ending), ("caller", 'Action: find\nAction Input: {"q": "x"}'), ("observation", "")
    )
    assert turn.reasoning_content == "I look."
    assert turn.decision is Decision.CALL
    assert planner_text(turn) == "I look." + ending


def test_a_call_keeps_its_arguments_as_written() -> None:
    turn = only_turn(
        ("assistant", " Next: caller."), ("caller", 'Action: find\nAction Input: { "q":1.00}\n'), ("observation", "r")
    )
    (call,) = turn.tool_calls
    assert (call.name, call.arguments, call.malformed) == ("find", '{ "q":1.00}\n', False)
    assert turn.reasoning_content == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", ""),
        ("I call find", ""),
        ("Action: find", "find"),
        ("Action: find\nAction Input: {oops", "find"),
        ("Action: find\nAction Input: [1]", "find"),
        ('Action: \nAction Input: {"q": 1}', ""),
        ('{"name": "find"}', ""),
    ],
)
def test_a_malformed_call_keeps_all_its_text_and_its_observation(text: str, name: str) -> None:
    trajectory = FORMAT.convert_record(
        record(("assistant", "I look. Next: caller."), ("caller", text), ("observation", "no")), "r"
    )
    turn, observation = trajectory.messages[1:]
    assert isinstance(turn, AssistantMessage) and isinstance(observation, ToolMessage)
    (call,) = turn.tool_calls
    assert (call.name, call.arguments, call.malformed) == (name, text, True)
    assert observation.tool_call_id == call.id
    assert caller_text(turn) == text


def test_giving_up_tells_the_user_a_fixed_sentence_and_keeps_the_rationale() -> None:
    turn = only_turn(("assistant", "Nothing fits. Next: give up."))
    assert (turn.refusal, turn.reasoning_content, turn.content) == (GIVE_UP_TEXT, "Nothing fits.", None)


def test_a_planner_turn_without_a_marker_decides_nothing() -> None:
    turn = only_turn(("assistant", "Hm. Next: caller. Or not? "), ("assistant", "Nothing fits. Next: give up."))
    assert turn.decision is None
    assert turn.reasoning_content == "Hm. Next: caller. Or not? "


@pytest.mark.parametrize(
    ("turns", "decision"),
    [
        ((("caller", "Action: find\nAction Input: {}"), ("observation", "")), Decision.CALL),
        ((("conclusion", "Done."),), Decision.FINISH),
    ],
)
def test_a_missing_marker_is_read_off_the_turn_that_follows(turns: tuple, decision: Decision) -> None:
    turn = only_turn(("assistant", "Hm."), *turns)
    assert turn.decision is decision
    assert planner_text(turn) == "Hm."


def test_user_turns_that_the_search_injected_stay_user_turns() -> None:
    turns = (("user", "This is not the first time"), ("assistant", "I know. Next: conclusion."), ("conclusion", "42"))
    messages = FORMAT.convert_record(record(*turns), "r").messages
    assert [message.role for message in messages] == ["user", "user", "assistant"]


def test_what_the_format_has_beyond_the_record_stays_in_extra() -> None:
    done = (("assistant", "Next: conclusion."), ("conclusion", "42"))
    assert FORMAT.convert_record(record(*done), "r").extra == {}
    odd = FORMAT.convert_record(record(*done, instruction="Another", source="G1"), "r")
    assert odd.extra == {"alpha-umi": {"instruction": "Another", "source": "G1"}}


# ---- tools --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("string, The name, in full", {"type": "string", "description": "The name, in full"}),
        ("integer, ", {"type": "integer"}),
        ("Boolean", {"type": "boolean"}),
        ("float, a", {"type": "number", "description": "a"}),
        ("list, a", {"type": "array", "description": "a"}),
        ("colour, a shade", {"description": "colour, a shade"}),
        ("", {}),
    ],
)
def test_an_input_line_becomes_a_json_schema(text: str, schema: dict[str, str]) -> None:
    tool = TOOL | {"input": {"x": text}}
    (converted,) = FORMAT.convert_record(record(("assistant", "Next: give up."), tools=[tool]), "r").tools
    assert converted.parameters == {"type": "object", "properties": {"x": schema}}
    assert converted.extra == {"alpha-umi": tool}


# ---- writing ------------------------------------------------------------------------------------------------------

DONE = (("assistant", "Next: conclusion."), ("conclusion", "42"))


@pytest.mark.parametrize(
    "odd",
    [
        record(*DONE, instruction="Another"),
        record(*DONE, instruction=None),
        {key: value for key, value in record(*DONE).items() if key != "instruction"},
        record(*DONE, source="G1"),
        record(("conclusion", "42")),
        record(tools=[{"weight": 1, "Name": "a"}]),
        record() | {"conversations": [{"from": "user", "value": "x", "weight": 0}]},
    ],
)
def test_a_record_with_oddities_is_written_as_it_was(odd: dict[str, Any]) -> None:
    assert json.dumps(write(FORMAT.convert_record(odd, "r")), sort_keys=True) == json.dumps(odd, sort_keys=True)


def test_what_one_turn_has_beside_its_text_stays_that_turns() -> None:
    calling = record(("assistant", "Next: caller."), ("caller", "Action: a\nAction Input: {}"), ("observation", ""))
    for number, turn in enumerate(calling["conversations"]):
        turn["loss"] = number
    assert write(FORMAT.convert_record(calling, "r")) == calling


def foreign(*messages: Message, tools: tuple[Tool, ...] = ()) -> Trajectory:
    return Trajectory(tools, (UserMessage("Find it."), *messages))


def test_a_trajectory_from_elsewhere_gets_a_planner_turn_for_each_decision() -> None:
    call = ToolCall("c", "find", '{"q": 1}')
    written = write(
        foreign(AssistantMessage("I look.", (call,)), ToolMessage("c", "r"), AssistantMessage(content="42"))
    )
    assert [turn["value"] for turn in written["conversations"]] == [
        "Find it.", "I look. Next: caller.", 'Action: find\nAction Input: {"q": 1}', "r", " Next: conclusion.", "42",
    ]  # fmt: skip
    assert written["instruction"] == "Find it."


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (AssistantMessage("Nothing fits.", refusal=GIVE_UP_TEXT), "Nothing fits. Next: give up."),
        (AssistantMessage("Nothing fits.", refusal="Sorry."), "Nothing fits.\nSorry. Next: give up."),
        (AssistantMessage("So: Sorry.", refusal="Sorry."), "So: Sorry. Next: give up."),
        (AssistantMessage(refusal="Sorry."), "Sorry. Next: give up."),
    ],
)
def test_the_words_of_a_refusal_end_the_rationale(turn: AssistantMessage, text: str) -> None:
    assert write(foreign(turn))["conversations"][1] == {"from": "assistant", "value": text}


def test_a_malformed_call_from_elsewhere_is_written_with_its_name() -> None:
    call = ToolCall("c", "find", "{oops", malformed=True)
    written = write(foreign(AssistantMessage("I look.", (call,)), ToolMessage("c", "no")))
    assert written["conversations"][2]["value"] == "Action: find\nAction Input: {oops"


def test_a_tool_from_elsewhere_is_its_name_its_description_and_its_arguments_types() -> None:
    properties = {"q": {"type": "string", "description": "What"}, "n": {"type": ["integer", "null"]}, "x": True}
    tool = Tool.of("find", "Finds.", {"type": "object", "properties": properties, "required": ["q"]})
    (document,) = write(foreign(tools=(tool,)))["tools"]
    assert document == {
        "Name": "find", "function": "Finds.", "input": {"q": "string, What", "n": "integer", "x": ""}
    }  # fmt: skip


def test_descriptions_from_elsewhere_are_cut_as_the_reference_code_cuts_them() -> None:
    properties = {"q": {"type": "string", "description": "x" * 10 + "y" * 256}}
    tool = Tool.of("find", "a" * 256 + "b", {"type": "object", "properties": properties})
    (document,) = write(foreign(tools=(tool,)))["tools"]
    assert document == {"Name": "find", "function": "a" * 256, "input": {"q": "string, " + "y" * 256}}


CALL_A, CALL_B = ToolCall("a", "find", "{}"), ToolCall("b", "find", "{}")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((SystemMessage("Be kind."),), "no system message"),
        ((AssistantMessage(tool_calls=(CALL_A, CALL_B)),), "several calls"),
        ((AssistantMessage(tool_calls=(CALL_A,)), AssistantMessage(content="42")), "a call has no observation"),
        ((AssistantMessage(),), "says nothing"),
        ((AssistantMessage("So Next: caller."),), "reads like a decision"),
    ],
)
def test_what_the_format_cannot_say_is_not_written(messages: tuple[Message, ...], reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        write(foreign(*messages))


def test_a_trajectory_without_a_user_is_not_written() -> None:
    with pytest.raises(RecordError, match="no user turn"):
        write(Trajectory((), (AssistantMessage(content="42"),)))


@pytest.mark.parametrize(
    "end", [(("assistant", "Done. Next: conclusion."), ("conclusion", "none")), (("assistant", "No. Next: give up."),)]
)
def test_what_the_search_replied_to_an_end_it_did_not_accept_stays_with_the_end(end: tuple) -> None:
    replied = record(*end, ("observation", "not so"), *end)
    replied["conversations"][len(end) + 1]["weight"] = 0
    trajectory = FORMAT.convert_record(replied, "r")
    assert [message.role for message in trajectory.messages] == ["user", "assistant", "assistant"]
    assert trajectory.messages[1].extra["alpha-umi"]["reply"] == "not so"
    assert write(trajectory) == replied
    assert write(Trajectory.from_json(trajectory.to_json())) == replied


def test_a_conversation_may_end_in_a_call_that_nothing_answered() -> None:
    ended = record(("assistant", "I look. Next: caller."), ("caller", "Action: find\nAction Input: {}"))
    trajectory = FORMAT.convert_record(ended, "r")
    assert [message.role for message in trajectory.messages] == ["user", "assistant"]
    assert write(trajectory) == ended


# ---- rejected records ---------------------------------------------------------------------------------------------

OBSERVED = ("observation", "r")
CALLED = ("caller", "Action: find\nAction Input: {}")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({}, "tools: Field required"),
        ({"tools": [], "instruction": "x", "chains": []}, "conversations: Field required"),
        ({"tools": [], "conversations": []}, "conversations: List should have at least 1 item"),
        ({"tools": [], "conversations": [{"from": "robot", "value": ""}]}, r"conversations\[\]\.from: Input should be"),
        ({"tools": [], "conversations": [{"from": "conclusion", "value": ""}]}, "no user turn"),
        (record(tools=[{"Name": ""}]), r"tools\[\]\.Name: String should have at least 1"),
        (record(tools=[TOOL | {"input": {"q": 3}}]), r"tools\[\]\.input\.q: Input should be a valid string"),
        (record(OBSERVED), "an observation follows no call"),
        (record(("assistant", "Next: caller.")), "hands over to the caller, but no caller turn follows"),
        (record(("assistant", "Next: caller."), ("conclusion", "x")), "hands over to the caller, but no caller"),
        (record(("assistant", "Next: conclusion."), CALLED), "hands over to the conclusion, but no conclusion"),
        (record(("assistant", "Next: caller."), CALLED, ("user", "x")), "a call has no observation"),
        (record(("assistant", "Next: caller."), CALLED, OBSERVED, OBSERVED), "an observation follows no call"),
        (record(("assistant", "Next: give up."), OBSERVED, OBSERVED), "an observation follows no call"),
        (record(("assistant", "Hm."), OBSERVED), "an observation follows no call"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


SPEAKERS = st.sampled_from(["user", "assistant", "caller", "observation", "conclusion"])
WORDS = st.sampled_from(
    ["", "x", "x Next: caller.", "Next: give up.", "Next: conclusion.", "Action: a\nAction Input: {}"]
)
TURN = st.fixed_dictionaries(
    {"from": SPEAKERS, "value": WORDS | st.text(max_size=9)}, optional={"weight": st.integers(0, 1)}
)
PLANS = st.sampled_from(["", "x", "x\n", "Next: caller", "x Next: give up."]).flatmap(
    lambda text: st.sampled_from([text, text + " Next: caller.", text + "\nNEXT: Conclusion .\n"])
)
CALLS = st.sampled_from(['Action: a\nAction Input: {"q": 1}', "Action:  a \nAction Input: {}", "Action: a", "?", ""])
STEPS = st.tuples(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), PLANS), max_size=2),
    st.just([]) | PLANS.map(lambda text: [("assistant", text)]),
    CALLS.map(lambda text: [("caller", text), ("observation", "r")])
    | st.sampled_from([[("conclusion", "42")], [("conclusion", "none"), ("observation", "r")]]),
).map(lambda parts: [{"from": speaker, "value": value} for part in parts for speaker, value in part])
ASKED = {"from": "user", "value": "x"}
WHOLE = st.lists(STEPS, max_size=3).map(lambda steps: [ASKED, *(turn for step in steps for turn in step)])
TURNS = st.lists(TURN, max_size=6) | WHOLE
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Name", "function", "input", "from", "value"]), inner, max_size=3)
    ),
    max_leaves=8,
)


PARTS = {"tools": st.just([TOOL]) | JUNK, "conversations": TURNS | JUNK}


@given(JUNK | st.fixed_dictionaries(PARTS, optional={"instruction": st.text(max_size=2) | JUNK, "source": JUNK}))
def test_any_record_is_written_as_it_was_or_rejected(anything: Any) -> None:
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert json.dumps(write(trajectory), sort_keys=True) == json.dumps(anything, sort_keys=True)
    FORMAT.looks_like(anything)
