"""FireAct: ReAct text becomes rationales, searches and an answer; the artefact at the end is no turn."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected
from alpha_umi.data.fireact import FORMAT, SEARCH
from alpha_umi.data.records import RecordError
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage

END = "Observation: Episode finished, reward = True\n"


def record(output: str, **more: Any) -> dict[str, Any]:
    return {"instruction": "Which game?", "input": "", "output": output} | more


def read(output: str) -> Trajectory:
    return FORMAT.convert_record(record(output), "r")


@pytest.mark.parametrize(
    ("name", "converted", "rejected", "searching"),
    [("multitask.json", 1344, 0, 1015), ("multitask_multimethod.json", 2058, 5, 1081)],
)
def test_the_real_files_hold_so_many_trajectories_with_searches(
    real_data: Path, name: str, converted: int, rejected: int, searching: int
) -> None:
    found = list(FORMAT.convert(real_data / "fireact" / "alpaca_format" / name))
    trajectories = [one for one in found if isinstance(one, Trajectory)]
    reasons = [one.reason for one in found if isinstance(one, Rejected)]
    assert (len(trajectories), reasons) == (converted, ["output: an observation follows no action"] * rejected)
    assert sum(any(isinstance(m, ToolMessage) for m in t.messages) for t in trajectories) == searching
    assert all("reward" in t.extra["fireact"] for t in trajectories)
    assert not any("Episode finished" in m.content for t in trajectories for m in t.messages if m.content)


def test_a_search_is_a_call_and_finish_the_answer() -> None:
    trajectory = read(
        "Thought: I search.\nAction: search[Malcolm [MVP]\nprize]\nObservation: He won.\nIn 2014.\n"
        f"Thought: Now I know.\nAction: finish[XLVIII]\n{END}"
    )
    asked, called, reply, answer = trajectory.messages
    assert asked == UserMessage("Which game?")
    assert isinstance(called, AssistantMessage) and isinstance(answer, AssistantMessage)
    assert called.reasoning_content == "I search."
    assert called.tool_calls[0].arguments == '{"query": "Malcolm [MVP]\\nprize"}'
    assert reply == ToolMessage("call_1", "He won.\nIn 2014.")
    assert (answer.reasoning_content, answer.content) == ("Now I know.", "XLVIII")
    assert (trajectory.tools, trajectory.extra) == ((SEARCH,), {"fireact": {"reward": "True"}})


def test_the_options_before_the_first_thought_join_the_question() -> None:
    asked, answer = read(f"A. one\nB. two\nThought: It is A.\nAction: finish[A]\n{END}").messages
    assert asked == UserMessage("Which game?\nA. one\nB. two")
    assert isinstance(answer, AssistantMessage) and answer.content == "A"


def test_a_record_without_a_thought_has_no_rationale() -> None:
    answer = read(f"Action: finish[A]\n{END}").messages[1]
    assert isinstance(answer, AssistantMessage) and answer.reasoning_content is None


def test_all_rewards_are_kept() -> None:
    output = "Action: finish[A]\nObservation: Episode finished, reward = 1.\nObservation: Episode finished, reward = 0"
    assert read(output).extra["fireact"]["reward"] == ["1.", "0"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        (record(""), "no finish"),
        (record("Thought: Hm."), "no finish"),
        (record("Action: look[x]\nObservation: y"), r"neither search\[\.\.\.\] nor finish"),
        (record("Thought: Hm.\nObservation: y"), "an observation follows no action"),
        (record(f"Action: search[x]\nAction: finish[y]\n{END}"), "a search has no observation"),
        (record("Action: finish[y]\nThought: More."), "goes on after finish"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


def test_it_recognises_its_own_records_only() -> None:
    assert FORMAT.looks_like(record(f"Thought: x\nAction: finish[y]\n{END}"))
    assert not FORMAT.looks_like(record("An answer."))
    assert not FORMAT.looks_like(record("Thought: x\nAction: find\nAction Input: {}"))


LINES = st.lists(
    st.sampled_from(
        ["A. one", "Thought: a", "Action: search[x]", "Action: finish[y]", "Action: z", "Observation: r", END, ""]
    ),
    max_size=8,
).map("\n".join)
JSON = st.recursive(st.none() | st.integers() | st.text(max_size=6), lambda inner: st.lists(inner, max_size=3))


@given(JSON | LINES.map(record) | JSON.map(lambda output: {"instruction": "x", "output": output}))
def test_any_record_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        found = FORMAT.convert_record(anything, "r").messages
    except RecordError as error:
        assert str(error)
        return
    assert isinstance(found[-1], AssistantMessage) and found[-1].content == "y"
    assert sum(isinstance(m, ToolMessage) for m in found) == anything["output"].count("search[x]")
