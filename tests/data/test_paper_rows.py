"""The paper's rows: the reference code's own, byte for byte, quirks included."""

import json
import lzma
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import alpha_umi
from alpha_umi.data.format import Options, PaperRole, Wording
from alpha_umi.data.paper_prompts import PROMPTS, fill, history_item
from alpha_umi.data.paper_rows import FORMAT, rows
from alpha_umi.errors import UserError
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

ROLES = get_args(PaperRole)
TOOL = {"Name": "find", "function": "Finds things.", "input": {"q": "string, "}}
CALL = ("caller", 'Action: find\nAction Input: {"q": "x"}')


def record(*turns: tuple[str, str]) -> Trajectory:
    said = [{"from": speaker, "value": value} for speaker, value in (("user", "Find it."), *turns)]
    return alpha_umi.FORMAT.convert_record({"tools": [TOOL], "instruction": "Find it.", "conversations": said}, "r")


def made(role: str, *trajectories: Trajectory) -> list[dict[str, Any]]:
    return list(rows(trajectories, Options.of(role=role)))


def targets(role: str, *trajectories: Trajectory) -> list[str]:
    return [row["target"] for row in made(role, *trajectories)]


def history_of(prompt: str) -> str:
    return prompt.partition("history is:\n")[2].partition("\nYou ")[0] or prompt.partition("history:\n")[2]


# ---- the reference ------------------------------------------------------------------------------------------------


def trajectories(path: Path) -> list[Trajectory]:
    converted = list(alpha_umi.FORMAT.convert(path))
    return [item for item in converted if isinstance(item, Trajectory)]


@pytest.mark.parametrize("role", ROLES)
def test_rows_of_the_training_sample_are_the_published_ones(real_data: Path, role: str) -> None:
    folder = real_data / "alpha-umi"
    expected = json.loads((folder / f"train_{role}.json").read_text(encoding="utf-8"))
    assert made(role, *trajectories(folder / "raw_data_stage_2.json")) == expected


@pytest.mark.parametrize("role", ROLES)
def test_rows_of_the_test_file_are_those_of_the_reference_code(real_data: Path, role: str) -> None:
    folder = real_data / "alpha-umi"
    with lzma.open(folder / "reference_rows_a" / f"{role}.jsonl.xz", "rt", encoding="utf-8") as file:
        expected = [json.loads(line) for line in file]
    written = made(role, *trajectories(folder / "test_out_of_domain_a.json"))
    assert [{"input": row["input"], "target": row["target"]} for row in written] == expected


def test_rows_may_have_toolalpacas_wording(real_data: Path) -> None:
    (first, *_) = trajectories(real_data / "alpha-umi" / "raw_data_stage_2.json")
    usual, other = (list(rows([first], Options.of(role="planner", wording=word))) for word in get_args(Wording))
    assert [row["target"] for row in usual] == [row["target"] for row in other]
    assert all("give up" in row["input"].lower() for row in usual)
    assert usual[0]["input"] != other[0]["input"]
    with pytest.raises(UserError, match="unknown wording 'x'; known are toolbench, toolalpaca"):
        Options.of(wording="x")


def test_the_prompts_are_the_published_ones(real_data: Path) -> None:
    published = json.loads((real_data / "alpha-umi" / "prompts.json").read_text(encoding="utf-8"))
    for wording, prompts in PROMPTS.items():
        for role, prompt in prompts.items():
            assert published[f"{wording}_{role}"] == prompt


# ---- quirks -------------------------------------------------------------------------------------------------------

PLANNED = ("assistant", "I look.\n Next: caller.")
SEEN = ("observation", "seen")
DONE = (("assistant", "Done.\n Next: conclusion."), ("conclusion", "42"))
GAVE_UP = ("assistant", "Nothing fits.\n Next: give up.")


def test_every_item_of_the_history_is_ended_but_an_observation() -> None:
    planner = made("planner", record(PLANNED, CALL, SEEN, *DONE))[1]
    assert history_of(planner["input"]) == (
        "user: Find it.</s>assistant: I look.\n Next: caller.</s>"
        'caller: Action: find\nAction Input: {"q": "x"}</s>observation: seen'
    )
    assert history_item("observation", "seen") == "observation: seen"


def test_the_backbone_writes_a_whole_step_and_sees_whole_steps() -> None:
    trajectory = record(PLANNED, CALL, SEEN, *DONE)
    assert targets("backbone", trajectory) == [f"I look.\n{CALL[1]}", "Done.\nconclusion: 42"]
    history = history_of(made("backbone", trajectory)[1]["input"])
    assert history == f"user: Find it.</s>assistant: I look.\n{CALL[1]}</s>observation: seen"


def test_the_callers_history_ends_in_the_planners_turn_which_is_its_thought_too() -> None:
    (row,) = made("caller", record(PLANNED, CALL, SEEN, *DONE))
    assert (
        "assistant: I look.\n Next: caller.</s>\nThe thought of this step is:\nI look.\n Next: caller.\nBase on"
        in (row["input"])
    )
    assert row["history"][-1] == {"from": "assistant", "value": PLANNED[1]}


def test_a_planner_turn_that_decided_nothing_is_no_row_and_stays_in_the_history() -> None:
    trajectory = record(("assistant", "Hm."), *DONE)
    for role in ("planner", "backbone", "summarizer"):
        (row,) = made(role, trajectory)
        assert "assistant: Hm.</s>" in row["input"]
    assert made("planner", record(*DONE, ("assistant", "Hm."))) == made("planner", record(*DONE))


def test_an_answer_none_is_no_row_of_the_summarizer_alone() -> None:
    trajectory = record(DONE[0], ("conclusion", "none"))
    assert made("summarizer", trajectory) == []
    assert targets("planner", trajectory) == ["Done.\n Next: conclusion."]
    assert targets("backbone", trajectory) == ["Done.\nconclusion: none"]


def test_a_call_of_an_invented_function_is_learned_by_the_backbone_alone() -> None:
    invented = ("caller", "Action: invalid_hallucination_function_name\nAction Input: {}")
    trajectory = record(PLANNED, invented, SEEN, PLANNED, CALL, SEEN, *DONE)
    assert targets("planner", trajectory) == [PLANNED[1], DONE[0][1]]
    assert targets("caller", trajectory) == [CALL[1]]
    assert len(targets("backbone", trajectory)) == 3
    assert "invalid_hallucination" not in made("caller", trajectory)[0]["input"]
    assert "invalid_hallucination" in made("planner", trajectory)[0]["input"]


def test_the_backbones_row_that_gives_up_has_the_input_of_the_row_before_it() -> None:
    calling = record(PLANNED, CALL, SEEN, GAVE_UP)
    first, last = made("backbone", calling)
    assert last == first | {"history": last["history"], "target": "Nothing fits.\nconclusion: give up."}
    _, last, other = made("backbone", calling, record(GAVE_UP))
    assert other["input"] == last["input"]
    assert len(other["history"]) == 1


def test_rows_that_give_up_one_after_another_share_the_input_across_records_in_any_order() -> None:
    calling, giving = record(PLANNED, CALL, SEEN, *DONE), record(GAVE_UP, GAVE_UP)
    finishing = record(*DONE)
    for order in ([calling, giving, giving, finishing], [finishing, giving, calling, giving], [finishing, giving] * 2):
        before = ""
        for row in made("backbone", *order):
            if row["target"].endswith("conclusion: give up."):
                assert row["input"] == before
            before = row["input"]


def test_records_that_only_give_up_at_first_have_the_first_ones_input() -> None:
    other = alpha_umi.FORMAT.convert_record(
        {"tools": [], "instruction": "No.", "conversations": [{"from": "user", "value": "No."},
         {"from": "assistant", "value": GAVE_UP[1]}]}, "r",
    )  # fmt: skip
    first, second = made("backbone", record(GAVE_UP), other)
    assert second["input"] == first["input"] and second["tools"] == []
    assert [history_of(row["input"]) for row in made("planner", record(GAVE_UP), other)] == [
        "user: Find it.</s>", "user: No.</s>",
    ]  # fmt: skip


def test_an_answer_that_the_search_did_not_accept_is_in_the_history_with_the_reply_to_it() -> None:
    trajectory = record(DONE[0], ("conclusion", "none"), ("observation", "not so"), PLANNED, CALL, SEEN, *DONE)
    assert targets("planner", trajectory) == [DONE[0][1], PLANNED[1], DONE[0][1]]
    assert targets("summarizer", trajectory) == ["42"]
    done = f"assistant: {DONE[0][1]}</s>"
    assert f"{done}conclusion: none</s>observation: not soassistant: " in made("caller", trajectory)[0]["input"]
    assert f"{done}observation: not soassistant: " in made("summarizer", trajectory)[0]["input"]
    assert "assistant: Done.\nconclusion: none</s>observation: not so\n" in made("backbone", trajectory)[1]["input"]


def test_only_the_caller_has_a_placeholder_for_the_thought() -> None:
    trajectory = record(("user", "Say {thought}."), PLANNED, CALL, SEEN, *DONE)
    for role in ("planner", "backbone", "summarizer"):
        assert all("user: Say {thought}.</s>" in row["input"] for row in made(role, trajectory))
    assert f"user: Say {PLANNED[1]}.</s>" in made("caller", trajectory)[0]["input"]


def test_the_first_row_of_all_has_its_own_input_though_it_gives_up() -> None:
    (row,) = made("backbone", record(GAVE_UP))
    assert history_of(row["input"]) == "user: Find it.</s>"


def test_placeholders_are_replaced_in_what_was_put_in_for_others() -> None:
    prompt = fill("caller", [TOOL | {"function": "{tool_names}"}], "{thought}", "T")
    assert '"function": "find"' in prompt
    assert "history is:\nT\n" in prompt


# ---- trajectories from elsewhere ----------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"q": {"type": "string", "description": "What"}}}
FIND = Tool.of("find", "Finds things.", SCHEMA)


def foreign(*messages: Message) -> Trajectory:
    return Trajectory((FIND,), (UserMessage("Find it."), *messages))


def test_several_calls_in_a_turn_are_a_step_each_with_its_own_observation() -> None:
    calls = ToolCall("a", "find", '{"q": "a"}'), ToolCall("b", "find", '{"q": "b"}')
    trajectory = foreign(
        AssistantMessage("I look twice.", calls), ToolMessage("a", "A"), ToolMessage("b", "B"),
        AssistantMessage("Done.", content="42"),
    )  # fmt: skip
    assert targets("planner", trajectory) == [
        "I look twice. Next: caller.",
        " Next: caller.",
        "Done. Next: conclusion.",
    ]
    assert [row["history"][-1]["value"] for row in made("planner", trajectory)] == ["Find it.", "A", "B"]
    assert targets("caller", trajectory) == [
        'Action: find\nAction Input: {"q": "a"}', 'Action: find\nAction Input: {"q": "b"}',
    ]  # fmt: skip


def test_a_call_without_an_observation_is_a_row_all_the_same() -> None:
    calls = ToolCall("a", "find", "{}"), ToolCall("b", "find", "{}")
    assert len(targets("caller", foreign(AssistantMessage(tool_calls=calls), ToolMessage("b", "B")))) == 2


def test_a_system_message_is_a_user_turn() -> None:
    trajectory = Trajectory((FIND,), (SystemMessage("Be kind."), UserMessage("Hi."), AssistantMessage(content="Hi.")))
    (row,) = made("summarizer", trajectory)
    assert row["input"].startswith(
        "Make a conclusion based on the conversation history:\nuser: Be kind.</s>user: Hi.</s>"
    )


def test_a_tool_from_elsewhere_is_documented_as_the_papers_are() -> None:
    (row,) = made("planner", foreign(AssistantMessage(content="42")))
    document = '{"Name": "find", "function": "Finds things.", "input": {"q": "string, What"}}'
    assert row["input"].startswith(f"You have assess to the following apis:\n{document}\n\nThe conversation")


IDS = st.lists(st.sampled_from("abc"), unique=True, max_size=3)
SAID = st.none() | st.sampled_from(["", "x", "x Next: caller.", "Next: give up. or not", "none"])


@st.composite
def messages(draw: st.DrawFn) -> list[Message]:
    calls = draw(IDS)
    reasoning, words = draw(SAID), draw(SAID)
    if calls:
        turn = AssistantMessage(reasoning, tuple(ToolCall(i, draw(st.sampled_from(["find", ""])), "{}") for i in calls))
        answered = draw(st.integers(0, len(calls)))
        return [turn, *(ToolMessage(i, "r") for i in calls[:answered])]
    turn = draw(
        st.sampled_from([AssistantMessage(reasoning, content=words), AssistantMessage(reasoning, refusal=words)])
    )
    return [turn, *draw(st.sampled_from([[], [UserMessage("And?")], [SystemMessage("Be kind.")]]))]


@given(st.lists(st.lists(messages(), max_size=3), max_size=3), st.sampled_from(ROLES))
def test_any_trajectory_has_rows(turns: list[list[list[Message]]], role: str) -> None:
    converted = [foreign(*(message for turn in one for message in turn)) for one in turns]
    for row in made(role, *converted):
        assert set(row) == {"tools", "history", "input", "target"}
        assert row["input"].endswith((" assistant: ", " caller: ", " conclusion: "))
    calls = sum(len(m.tool_calls) for t in converted for m in t.messages if isinstance(m, AssistantMessage))
    assert role != "caller" or len(made("caller", *converted)) == calls


def test_no_role_is_refused_and_the_four_are_named() -> None:
    with pytest.raises(UserError, match="backbone, planner, caller, summarizer"):
        rows([], Options())


def test_the_format_can_only_be_written() -> None:
    assert FORMAT.rows is rows and FORMAT.read is None and FORMAT.write is None
    assert not FORMAT.looks_like({"tools": [], "history": [], "input": "", "target": ""})
