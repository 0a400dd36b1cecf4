"""Stage 1 chains: read, written again as they were, and turned into stage 2 as the reference code does."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import alpha_umi
from alpha_umi.data.alpha_umi_chains import FORMAT, looks_like, write
from alpha_umi.data.function_chains import GIVE_UP_TEXT, finish, response
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

TOOL = {"Name": "find", "function": "Finds things.", "input": {"q": "string, "}}
PROMPT = {"role": "system", "content": "You are AutoGPT."}
ASKED = {"role": "user", "content": "\nFind it.\nBegin!\n"}
HINT = {"role": "user", "content": "This is not the first time.", "valid": False}
THOUGHT = {"role": "assistant", "content": "I think."}
SEEN = {"role": "function", "name": "find", "content": '{"error": "", "response": "seen"}'}


def calls(name: str = "find", arguments: str = '{"q": "x"}', thought: str | None = "I look.") -> dict[str, Any]:
    return {"role": "assistant", "content": thought, "function_call": {"name": name, "arguments": arguments}}


ANSWER = calls("Finish", '{\n  "return_type": "give_answer",\n  "final_answer": "42"\n}', "Done.")
GIVE_UP = calls("Finish", '{"return_type": "give_up_and_restart"}', None)


def record(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tools": [TOOL], "instruction": "Find it.", "chains": [PROMPT, ASKED, *messages]} | more


def read(*messages: dict[str, Any], **more: Any) -> Trajectory:
    return FORMAT.convert_record(record(*messages, **more), "r")


# ---- the real file ------------------------------------------------------------------------------------------------


def test_the_published_chains_are_written_as_they_were(real_data: Path) -> None:
    path = real_data / "alpha-umi" / "raw_data_stage_1.json"
    originals = json.loads(path.read_text(encoding="utf-8"))
    for original, trajectory in zip(originals, FORMAT.convert(path), strict=True):
        assert isinstance(trajectory, Trajectory)
        assert write(trajectory) == original
        assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_stage_1_written_as_alpha_umi_is_the_published_stage_2(real_data: Path) -> None:
    folder = real_data / "alpha-umi"
    expected = json.loads((folder / "raw_data_stage_2.json").read_text(encoding="utf-8"))
    converted = FORMAT.convert(folder / "raw_data_stage_1.json")
    assert [alpha_umi.write(item) for item in converted if isinstance(item, Trajectory)] == expected


# ---- turns --------------------------------------------------------------------------------------------------------


def test_a_chain_becomes_thoughts_calls_observations_and_an_answer() -> None:
    trajectory = read(HINT, calls(), SEEN, THOUGHT, ANSWER)
    call = ToolCall("call_1", "find", '{"q": "x"}')
    assert trajectory.messages == (
        UserMessage("Find it."),
        UserMessage(HINT["content"], {"toolbench": {"fields": {"valid": False}}}),
        AssistantMessage("I look.", (call,)),
        ToolMessage("call_1", SEEN["content"]),
        AssistantMessage("I think."),
        AssistantMessage("Done.", content="42"),
    )
    assert trajectory.extra == {"toolbench": {"system": "You are AutoGPT."}}
    assert [tool.name for tool in trajectory.tools] == ["find"]


@pytest.mark.parametrize(
    ("arguments", "thought", "end"),
    [
        ('{"return_type": "give_answer", "final_answer": "42"}', None, (False, "42")),
        ('{"return_type": "give_answer", "final_answer": 42}', None, (False, "42")),
        ('{"return_type": "give_answer"}', "So 42.", (False, "none")),
        ('{"return_type": "give_answer", "final_answer": "42"', None, (False, "42")),
        ('{"return_type": "give_answer", "final_answer": "it is 4\n2"}', None, (False, "it is 4\n2")),
        ('{"final_answer": "42"}', None, (False, "42")),
        ("oops", "So 42.", (False, "So 42.")),
        ("[1]", None, (False, "none")),
        ('{"return_type": "give_up_and_restart"}', "No.", (True, GIVE_UP_TEXT)),
        ('{"return_type": "give_up_and_restart", "final_answer": "Sorry."}', None, (True, "Sorry.")),
        ('{"return_type": "give_up_and_restart", "final_answer": ""}', None, (True, GIVE_UP_TEXT)),
        ('{"return_type": "give_up_and_restart"', None, (True, GIVE_UP_TEXT)),
    ],
)
def test_finish_ends_in_an_answer_or_a_refusal(arguments: str, thought: str | None, end: tuple[bool, str]) -> None:
    assert finish(arguments, thought) == end
    trajectory = read(calls("Finish", arguments, thought))
    (last,) = trajectory.messages[1:]
    assert isinstance(last, AssistantMessage)
    assert (last.refusal if end[0] else last.content) == end[1]
    assert write(trajectory)["chains"][-1] == calls("Finish", arguments, thought)


def test_a_finish_that_was_answered_is_a_call_like_any_other() -> None:
    answered = {"role": "function", "name": "Finish", "content": '{"error": "must have final_answer"}'}
    trajectory = read(calls("Finish", "{}"), answered, ANSWER)
    decisions = [m.decision for m in trajectory.messages if isinstance(m, AssistantMessage)]
    assert decisions == [Decision.CALL, Decision.FINISH]
    assert write(trajectory) == record(calls("Finish", "{}"), answered, ANSWER)


@pytest.mark.parametrize(("name", "arguments"), [("find", "{oops"), ("find", "[1]"), ("", "{}")])
def test_a_malformed_call_keeps_its_arguments_and_its_observation(name: str, arguments: str) -> None:
    trajectory = read(calls(name, arguments), SEEN, ANSWER)
    turn, observation = trajectory.messages[1:3]
    assert isinstance(turn, AssistantMessage) and isinstance(observation, ToolMessage)
    assert turn.tool_calls == (ToolCall("call_1", name, arguments, malformed=True),)
    assert observation.tool_call_id == "call_1"
    assert write(trajectory) == record(calls(name, arguments), SEEN, ANSWER)


# ---- stage 2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "kept"),
    [
        ('{"error": "", "response": "seen"}', "seen"),
        ('{"error": "", "response": {"a": 1}}', '{"a": 1}'),
        ('{"error": "", "response": "cut...', ' "cut...'),
        ('{"error": "down", "response": ""}', ""),
        ("garbage", ""),
        ('"\\"response\\": in JSON twice"', " in JSON twice"),
    ],
)
def test_stage_2_keeps_of_an_observation_its_response(observation: str, kept: str) -> None:
    assert response(observation) == kept


def test_stage_2_drops_thoughts_that_decided_nothing_and_ends_the_others_in_a_line_break() -> None:
    written = alpha_umi.write(read(HINT, calls(), SEEN, THOUGHT, calls(thought=None), SEEN, GIVE_UP))
    assert [(turn["from"], turn["value"]) for turn in written["conversations"]] == [
        ("user", "Find it."),
        ("user", HINT["content"]),
        ("assistant", "I look.\n Next: caller."),
        ("caller", 'Action: find\nAction Input: {"q": "x"}'),
        ("observation", "seen"),
        ("assistant", " Next: caller."),
        ("caller", 'Action: find\nAction Input: {"q": "x"}'),
        ("observation", "seen"),
        ("assistant", " Next: give up."),
    ]
    assert (written["tools"], written["instruction"]) == ([TOOL], "Find it.")


@pytest.mark.parametrize(
    ("arguments", "turns"),
    [
        ('{"return_type": "give_answer"}', [("assistant", "I look.\n Next: conclusion."), ("conclusion", "none")]),
        ('{"final_answer": "cut', [("assistant", "I look.\n Next: conclusion."), ("conclusion", "cut")]),
        ("oops", [("assistant", "I look.\n Next: conclusion."), ("conclusion", "I look.")]),
        ('{"return_type": "give_up_and_restart"}', [("assistant", "I look.\n Next: give up.")]),
    ],
)
def test_stage_2_makes_every_finish_an_end_whatever_the_search_replied(arguments: str, turns: list) -> None:
    replied = {"role": "function", "name": "Finish", "content": '{error: "must have final_answer"}'}
    written = alpha_umi.write(read(calls("Finish", arguments), replied, ANSWER))
    said = [(turn["from"], turn["value"]) for turn in written["conversations"]]
    assert said[1:-2] == [*turns, ("observation", "")]
    assert alpha_umi.write(alpha_umi.FORMAT.convert_record(written, "r")) == written


# ---- writing and refusing -----------------------------------------------------------------------------------------


def test_a_trajectory_from_elsewhere_is_written_as_a_chain() -> None:
    messages: tuple[Message, ...] = (
        SystemMessage("Be kind."), UserMessage("Find it."), AssistantMessage(None, (ToolCall("c", "find", "{}"),)),
        ToolMessage("c", "seen"), AssistantMessage("Done.", content="42"),
    )  # fmt: skip
    assert write(Trajectory((), messages))["chains"] == [
        {"role": "system", "content": "Be kind."}, ASKED, calls(arguments="{}", thought=None),
        {"role": "function", "name": "find", "content": "seen"}, ANSWER,
    ]  # fmt: skip


TWO = (ToolCall("a", "find", "{}"), ToolCall("b", "find", "{}"))


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (AssistantMessage(tool_calls=TWO), "several calls"),
        (AssistantMessage(), "says nothing"),
        (SystemMessage("Be kind."), "not the first"),
    ],
)
def test_what_a_chain_cannot_say_is_not_written(turn: Message, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        write(Trajectory((), (UserMessage("Find it."), turn)))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"tools": [], "instruction": "x", "conversations": []}, "chains: Field required"),
        (record() | {"chains": []}, "chains: List should have at least 1 item"),
        (record() | {"chains": [PROMPT]}, "the chain has no user message"),
        (record(SEEN), "a function message answers no call"),
        (record(calls(), ANSWER), "a call has no function message"),
        (record(PROMPT), "a system message is not the first"),
        (record({"role": "assistant", "content": None}), "neither content nor a call"),
        (record({"role": "robot", "content": ""}), r"chains\[\]: a message of a chain needs the 'role'"),
        (record({"role": "assistant", "content": "", "function_call": {"name": "a"}}), "arguments: Field required"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_only_chains_are_recognised() -> None:
    assert looks_like(record())
    assert not any(map(looks_like, [None, [], {}, {"chains": []}, {"chains": [1]}, {"chains": [{"role": []}]}]))
    assert not looks_like({"conversations": [{"from": "user", "value": ""}]})


# ---- any record ---------------------------------------------------------------------------------------------------

TEXT = st.sampled_from(["", "x", "\nx\nBegin!\n", '{"q": 1}', '"final_answer": "x"}', "give_up_and_restart"])
ARGUMENTS = TEXT | st.fixed_dictionaries(
    {"return_type": st.sampled_from(["give_answer", "give_up_and_restart"])}, optional={"final_answer": TEXT}
).map(json.dumps)
FUNCTION_CALL = st.fixed_dictionaries({"name": st.sampled_from(["a", "", "Finish"]), "arguments": ARGUMENTS})
MORE: dict[str, st.SearchStrategy[Any]] = {"valid": st.booleans()}
ASSISTANT = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT}, optional=MORE | {"function_call": FUNCTION_CALL}
)
USER = st.fixed_dictionaries({"role": st.just("user"), "content": TEXT}, optional=MORE)
FUNCTION = st.fixed_dictionaries(
    {"role": st.just("function"), "name": st.sampled_from(["a", "Finish"]), "content": TEXT}, optional=MORE
)
STEP = st.tuples(ASSISTANT, FUNCTION).map(list) | st.one_of(USER, ASSISTANT, FUNCTION).map(lambda one: [one])
CHAIN = st.lists(STEP, max_size=4).map(lambda steps: [PROMPT, ASKED, *(one for step in steps for one in step)])
JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PARTS = {
    "tools": st.just([TOOL]) | JUNK,
    "instruction": st.just("Find it.") | JUNK,
    "chains": CHAIN | st.lists(JUNK, max_size=3) | JUNK,
}


@given(JUNK | st.fixed_dictionaries(PARTS, optional={"source": JUNK}))
def test_any_record_is_written_as_it_was_or_rejected(anything: Any) -> None:
    looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert json.dumps(write(trajectory), sort_keys=True) == json.dumps(anything, sort_keys=True)


@given(CHAIN)
def test_what_stage_2_writes_can_be_read(chain: list[dict[str, Any]]) -> None:
    try:
        written = alpha_umi.write(FORMAT.convert_record(record() | {"chains": chain}, "r"))
    except RecordError as error:
        assert str(error)
    else:
        assert alpha_umi.write(alpha_umi.FORMAT.convert_record(written, "r")) == written
