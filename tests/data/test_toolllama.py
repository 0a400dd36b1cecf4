"""ToolLLaMA's conversations: text turns read into calls and answers, and written as they were.

No public file of this form is small enough to be at hand, so the records here are made by hand, in the shape of
ToolBench's own preprocessing, or written from ToolBench's published trees.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import toolbench
from alpha_umi.data.function_chains import FINISH_FUNCTION, GIVE_UP_TEXT
from alpha_umi.data.records import RecordError
from alpha_umi.data.toolllama import FORMAT, PROMPT, looks_like, write
from alpha_umi.trajectory import (
    AssistantMessage,
    Decision,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
)

FIND = {"name": "find", "description": 'Find\'s "best".', "parameters": {"type": "object", "properties": {}}}
APIS = "\nSpecifically, you have access to the following APIs: "
SYSTEM = {"from": "system", "value": f"You are AutoGPT.\n1.finder: Finds{APIS}{[FIND, FINISH_FUNCTION]}"}
ASKED = {"from": "user", "value": "\nFind it.\nBegin!\n"}
SEEN = {"from": "function", "value": '{"error": "", "response": "seen"}'}
CALL = {"from": "assistant", "value": '\nThought: I look.\nAction: find\nAction Input: {"q": "x"}'}


def finishes(arguments: str, thought: str = "") -> dict[str, str]:
    return {"from": "assistant", "value": f"\nThought: {thought}\nAction: Finish\nAction Input: {arguments}"}


ANSWER = finishes('{\n  "return_type": "give_answer",\n  "final_answer": "42"\n}', "Done.")
GIVE_UP = finishes('{"return_type": "give_up_and_restart"}')


def record(*turns: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"id": "Step 5: Find it.", "conversations": [SYSTEM, ASKED, *turns]} | more


def read(*turns: dict[str, str]) -> Trajectory:
    trajectory = FORMAT.convert_record(record(*turns), "r")
    assert write(trajectory) == record(*turns)
    return trajectory


# ---- turns --------------------------------------------------------------------------------------------------------


def test_a_conversation_becomes_thoughts_calls_observations_and_an_answer() -> None:
    trajectory = read(CALL, SEEN, ANSWER)
    assert trajectory.messages == (
        UserMessage("Find it."),
        AssistantMessage("I look.", (ToolCall("call_1", "find", '{"q": "x"}'),)),
        ToolMessage("call_1", SEEN["value"]),
        AssistantMessage("Done.", content="42"),
    )
    assert [json.loads(tool.schema) for tool in trajectory.tools] == [FIND]
    assert trajectory.extra["toolllama"] == {"id": "Step 5: Find it."}


def test_giving_up_is_a_refusal_and_no_thought_is_no_rationale() -> None:
    assert read(GIVE_UP).messages[-1] == AssistantMessage(
        None, refusal=GIVE_UP_TEXT, extra={"toolbench": {"finish": '{"return_type": "give_up_and_restart"}'}}
    )


def test_a_step_of_a_longer_chain_ends_in_a_call_without_an_observation() -> None:
    last = read(CALL, SEEN, CALL).messages[-1]
    assert isinstance(last, AssistantMessage) and last.decision is Decision.CALL


def test_the_last_action_of_a_turn_is_its_call() -> None:
    value = "\nThought: a\nThought: b\nAction: no\nAction Input: {}\nAction: find\nAction Input: {}"
    turn = read({"from": "assistant", "value": value}, SEEN, ANSWER).messages[1]
    assert isinstance(turn, AssistantMessage)
    assert turn.tool_calls == (ToolCall("call_1", "find", "{}"),)
    assert turn.reasoning_content == "a\nThought: b\nAction: no\nAction Input: {}"


@pytest.mark.parametrize(
    ("value", "call"),
    [
        ("\nThought: \nAction: find\nAction Input: {oops", ToolCall("call_1", "find", "{oops", malformed=True)),
        ("I look.\nAction: find", ToolCall("call_1", "find", "I look.\nAction: find", malformed=True)),
        ("I look.", ToolCall("call_1", "", "I look.", malformed=True)),
        ('{"q": "Action: find"}', ToolCall("call_1", "", '{"q": "Action: find"}', malformed=True)),
        ("\nThought: \nAction:  find \nAction Input: {}", ToolCall("call_1", "find", "{}")),
    ],
)
def test_a_call_that_cannot_be_read_keeps_its_text_and_its_observation(value: str, call: ToolCall) -> None:
    turn, observation = read({"from": "assistant", "value": value}, SEEN, ANSWER).messages[1:3]
    assert isinstance(turn, AssistantMessage) and isinstance(observation, ToolMessage)
    assert turn.tool_calls == (call,)
    assert observation.tool_call_id == "call_1"


def test_text_that_nothing_answers_is_a_thought() -> None:
    assert read({"from": "assistant", "value": "Hm."}, ANSWER).messages[1].extra == {"toolllama": {"value": "Hm."}}


def test_a_hint_of_the_search_stays_a_user_turn() -> None:
    assert [m.role for m in read({"from": "user", "value": "Not the first time."}, ANSWER).messages] == [
        "user", "user", "assistant",
    ]  # fmt: skip


# ---- writing ------------------------------------------------------------------------------------------------------


def test_published_chains_are_written_and_read_again(real_data: Path) -> None:
    for name in ("G1_answer", "G2_answer", "G3_answer"):
        for item in toolbench.FORMAT.convert(real_data / "toolbench" / "answer" / name):
            if isinstance(item, Trajectory):
                written = write(item)
                again = FORMAT.convert_record(written, "r")
                assert looks_like(written) and write(again) == written
                assert [tool.function for tool in again.tools] == [tool.function for tool in item.tools]
                assert again.messages[-1] == item.messages[-1] or item.messages[-2].role == "assistant"


def test_the_prompt_is_the_published_one(real_data: Path) -> None:
    published = json.loads((real_data / "alpha-umi" / "prompts.json").read_text(encoding="utf-8"))
    tool = Tool(json.dumps(FIND))
    system = write(Trajectory((tool,), (UserMessage("x"),)))["conversations"][0]["value"]
    listed = """1.find: Find's "best".\n"""
    api_list = str([FIND, FINISH_FUNCTION])
    wanted = published["toolbench_toolllama"].replace("{tool_doc}", listed).replace("{api_list}", api_list)
    assert system == wanted


def test_without_tools_none_are_listed() -> None:
    system = write(Trajectory((), (UserMessage("x"),)))["conversations"][0]["value"]
    assert "You have access of" not in system and system.endswith(f"{APIS}{[FINISH_FUNCTION]}")


def test_the_list_of_tools_is_one_line_for_each_collection() -> None:
    def part(name: str, text: str) -> Tool:
        described = f'This is the subfunction for tool "shop", you can use this tool.{text}'
        return Tool.of(name, described, {"type": "object", "properties": {}})

    tools = (
        part("a_for_shop", 'The description of this function is: "Lists\n goods."'), Tool(json.dumps(FIND)),
        part("b_for_shop", ""), part("c_for_shop", 'The description of this function is: "Buys."'),
    )  # fmt: skip
    system = write(Trajectory(tools, (UserMessage("x"),)))["conversations"][0]["value"]
    listed = """1.shop: Lists goods. Buys.\n2.find: Find's "best".\n"""
    assert f"names.\nYou have access of the following tools:\n{listed}{APIS}" in system


def test_a_trajectory_from_elsewhere_is_one_record_of_its_whole_chain() -> None:
    messages = (
        SystemMessage("Be kind."), UserMessage("Find it."), AssistantMessage("Hm."),
        AssistantMessage(None, (ToolCall("c", "find", '{"q": "x"}'),)), ToolMessage("c", SEEN["value"]),
        AssistantMessage(None, (ToolCall("d", "find", "{}"),)), ToolMessage("d", "none"),
        AssistantMessage("Done.", content="42"),
    )  # fmt: skip
    written = write(Trajectory((Tool(json.dumps(FIND)),), messages))
    assert written["id"] == "Step 7: Find it."
    system, *turns = written["conversations"]
    listed = """You have access of the following tools:\n1.find: Find's "best".\n"""
    assert system["value"].endswith(f"subfunctions' names.\nBe kind.\n{listed}{APIS}{[FIND, FINISH_FUNCTION]}")
    assert turns == [
        ASKED,
        {"from": "assistant", "value": '\nThought: Hm.\nAction: find\nAction Input: {"q": "x"}'},
        SEEN,
        {"from": "assistant", "value": "\nThought: \nAction: find\nAction Input: {}"},
        {"from": "function", "value": "none"},
        ANSWER,
    ]


def test_a_thought_that_no_call_follows_is_a_turn_of_its_own() -> None:
    messages = (UserMessage("Find it."), AssistantMessage("Hm."), UserMessage("And?"), AssistantMessage("So."))
    assert [turn["value"] for turn in write(Trajectory((), messages))["conversations"][1:]] == [
        "\nFind it.\nBegin!\n", "\nThought: Hm.", "And?", "\nThought: So.",
    ]  # fmt: skip


def test_several_calls_in_a_turn_are_not_written() -> None:
    calls = ToolCall("a", "find", "{}"), ToolCall("b", "find", "{}")
    with pytest.raises(RecordError, match="several calls"):
        write(Trajectory((), (AssistantMessage(tool_calls=calls),)))


# ---- refusing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        ({"conversations": []}, "conversations: List should have at least 1 item"),
        ({"conversations": [ASKED]}, "doesn't begin with a system turn"),
        ({"conversations": [{"from": "system", "value": PROMPT}]}, "lists no APIs"),
        ({"conversations": [{"from": "system", "value": f"{APIS}[{{"}]}, "can't be read as a list of functions"),
        ({"conversations": [{"from": "system", "value": f"{APIS}[1]"}]}, "can't be read as a list of functions"),
        ({"conversations": [{"from": "system", "value": f"{APIS}[{{'name': ''}}]"}]}, "a function has no name"),
        (record(SEEN), "a function message answers no call"),
        (record(CALL, CALL), "a call has no function message"),
        (record(SYSTEM), "a system message is not the first"),
        (record({"from": "gpt", "value": ""}), r"conversations\[\]\.from: Input should be"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_only_conversations_whose_system_turn_lists_apis_are_recognised() -> None:
    assert looks_like(record(CALL))
    assert not looks_like({"conversations": [{"from": "system", "value": "Be kind."}, ASKED]})
    assert not any(map(looks_like, [None, [], {}, {"conversations": [1]}, {"conversations": [SYSTEM, {"from": []}]}]))


JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["from", "value"]), inner, max_size=3),
    max_leaves=6,
)
VALUES = st.sampled_from([CALL["value"], ANSWER["value"], GIVE_UP["value"], ASKED["value"]]) | st.lists(
    st.sampled_from(["\nThought: ", "Thought: ", "\nAction: ", "\nAction Input: ", "find", "Finish", " ", "{}", "\n"])
).map("".join)
STEP = VALUES.map(lambda value: [{"from": "assistant", "value": value}, SEEN]) | st.fixed_dictionaries(
    {"from": st.sampled_from(["user", "assistant", "function"]), "value": VALUES}
).map(lambda turn: [turn])
CONVERSATION = st.lists(STEP, max_size=4).map(lambda steps: [SYSTEM, *(turn for step in steps for turn in step)])


@given(JUNK | st.fixed_dictionaries({"conversations": CONVERSATION | JUNK}, optional={"id": JUNK}))
def test_any_record_is_written_as_it_was_or_rejected(anything: Any) -> None:
    looks_like(anything)
    try:
        trajectory = FORMAT.convert_record(anything, "r")
    except RecordError as error:
        assert str(error)
    else:
        assert json.dumps(write(trajectory), sort_keys=True) == json.dumps(anything, sort_keys=True)
