"""ToRA: a program is a call, its output the observation."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.data import Rejected
from alpha_umi.data.records import RecordError
from alpha_umi.data.tora import FORMAT
from alpha_umi.tools.sandbox import SandboxError, SandboxLimits, open_sandbox
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory

RUN = "```python\nprint(21)\n```\n```output\n21\n```"


def record(solved: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "x - y?"}, {"role": "assistant", "content": solved}]
    return {"dataset": "tora", "gt": "21", "gt_cot": "", "messages": messages}


def test_the_real_file_has_25_programs_in_30_solutions(real_data: Path) -> None:
    found = list(FORMAT.convert(real_data / "tora" / "tora_corpus_examples.jsonl"))
    assert not any(isinstance(one, Rejected) for one in found)
    trajectories = [one for one in found if isinstance(one, Trajectory)]
    assert len(trajectories) == 30
    calls = [call for t in trajectories for m in t.messages if isinstance(m, AssistantMessage) for call in m.tool_calls]
    assert len(calls) == 25 and all("code" in (call.parsed() or {}) for call in calls)
    assert all("gt_cot" in t.extra["tora"] for t in trajectories)


def test_a_program_is_a_call_and_the_text_before_it_its_rationale() -> None:
    _, called, output, answer = FORMAT.convert_record(
        record(f"Let's solve it:\n\n{RUN}\nThe answer is 21."), "r"
    ).messages
    assert isinstance(called, AssistantMessage) and isinstance(answer, AssistantMessage)
    assert (called.reasoning_content, called.tool_calls[0].arguments) == ("Let's solve it:", '{"code": "print(21)"}')
    assert output == ToolMessage("call_1", "21")
    assert (answer.reasoning_content, answer.content) == (None, "The answer is 21.")


def test_a_solution_without_a_program_is_an_answer() -> None:
    _, answer = FORMAT.convert_record(record("It is 21."), "r").messages
    assert isinstance(answer, AssistantMessage) and answer.content == "It is 21."


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "Input should be an object"),
        (record(RUN), "no answer after the last output"),
        (record("```python\nx\n``` Done."), "a block that is not a program with its output"),
        (record("x") | {"messages": [{"role": "user", "content": "x"}] * 2}, "not one user and one assistant"),
    ],
)
def test_a_record_that_makes_no_sense_is_rejected_with_a_reason(bad: Any, reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        FORMAT.convert_record(bad, "r")


PIECES = st.lists(st.sampled_from([RUN, "```", "```python\n", "```output\n", "\n", "text"]), max_size=6).map("".join)


@given(st.none() | st.lists(st.integers(), max_size=2) | PIECES.map(record))
def test_any_record_is_converted_whole_or_rejected(anything: Any) -> None:
    FORMAT.looks_like(anything)
    try:
        found = FORMAT.convert_record(anything, "r").messages
    except RecordError as error:
        assert str(error)
    else:
        assert sum(isinstance(m, ToolMessage) for m in found) == anything["messages"][1]["content"].count(RUN)


RUN_ALL = """
import contextlib, io, json
outputs = []
for program in {programs!r}:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            exec(program, {{}})
        except Exception as error:
            print(type(error).__name__)
    outputs.append(output.getvalue().strip())
print(json.dumps(outputs))
"""


def test_the_sandbox_gives_the_outputs_of_the_real_programs_but_for_one_that_is_broken(real_data: Path) -> None:
    programs: list[str] = []
    outputs: list[str] = []
    for one in FORMAT.convert(real_data / "tora" / "tora_corpus_examples.jsonl"):
        assert isinstance(one, Trajectory)
        calls = [call for m in one.messages if isinstance(m, AssistantMessage) for call in m.tool_calls]
        programs += [(call.parsed() or {})["code"] for call in calls]
        outputs += [m.content.strip() for m in one.messages if isinstance(m, ToolMessage)]

    async def ran() -> str:
        sandbox = await open_sandbox(SandboxLimits(seconds=120, cpu_seconds=60))
        return await sandbox.run(RUN_ALL.format(programs=programs))

    try:
        got = json.loads(asyncio.run(ran()))
    except SandboxError as error:
        pytest.skip(str(error))
    assert [(now, then) for now, then in zip(got, outputs, strict=True) if now != then] == [("TypeError", "4")]
