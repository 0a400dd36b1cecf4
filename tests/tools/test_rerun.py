"""Programs of recorded trajectories, run again: the sandbox's outputs are kept, and what differs is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alpha_umi.cli import app
from alpha_umi.data import convert
from alpha_umi.data.programs import PYTHON
from alpha_umi.trajectory import (
    AssistantMessage,
    ToolCall,
    ToolMessage,
    Trajectory,
    UserMessage,
    json_text,
    read_jsonl,
    write_jsonl,
)


def trajectory(*programs: tuple[str, str]) -> Trajectory:
    """Programs with what is recorded of their output."""
    messages = [UserMessage("How much?")]
    for number, (code, output) in enumerate(programs):
        call = ToolCall(f"call_{number}", PYTHON.name, json_text({"code": code}))
        messages += [AssistantMessage("I compute.", (call,)), ToolMessage(call.id, output)]
    return Trajectory((PYTHON,), (*messages, AssistantMessage(content="So much.")))


def rerun(tmp_path: Path, *trajectories: Trajectory) -> tuple[dict[str, object], list[Trajectory], list[str]]:
    """The summary, what was written, and why the others were not."""
    data, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    write_jsonl(data, trajectories)
    result = CliRunner().invoke(app, ["data", "run-programs", str(data), "--out", str(out), "--json"])
    if result.exit_code and "can't be run safely" in str(result.exception):
        pytest.skip(str(result.exception))
    assert result.exit_code == 0, result.output
    rejected = Path(f"{out}.rejected.jsonl")
    lines = rejected.read_text("utf-8").splitlines() if rejected.exists() else []
    return json.loads(result.stdout), list(read_jsonl(out)), [json.loads(line)["reason"] for line in lines]


def outputs(one: Trajectory) -> list[str]:
    return [message.content for message in one.messages if isinstance(message, ToolMessage)]


def test_what_comes_out_the_same_is_kept_as_the_sandbox_says_it_and_the_rest_is_rejected_with_the_reason(
    tmp_path: Path,
) -> None:
    summary, kept, reasons = rerun(
        tmp_path,
        trajectory(("print(21)", "21\n"), ("48/2", "24")),
        trajectory(("print('a'); print('b')", "a\nb")),
        trajectory(("1/0", '{"error": "exception: ZeroDivisionError"}')),
        trajectory(),
        trajectory(("1 + 1", "3")),
        trajectory(("sorted(3)", "4")),
        trajectory(("1", '{"error": "timeout"}')),
    )
    assert [outputs(one) for one in kept[:2]] == [["21", "24.0"], ["a\nb"]]
    assert "ZeroDivisionError: division by zero" in outputs(kept[2])[0]
    assert outputs(kept[3]) == []
    assert reasons == [
        "a program prints something else than is recorded", "a program fails: exception",
        "a program runs whose failure is recorded",
    ]  # fmt: skip
    assert summary == {"read": 7, "programs": 7, "written": 4, "rejected": dict.fromkeys(reasons, 1)}


def test_nothing_to_run_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    write_jsonl(data, [trajectory()])
    result = CliRunner().invoke(app, ["data", "run-programs", str(data), "--out", str(tmp_path / "out.jsonl")])
    assert "nothing to run" in str(result.exception)


def test_of_toras_examples_one_program_does_not_give_what_is_recorded(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("sympy")
    found = list(convert(real_data / "tora" / "tora_corpus_examples.jsonl", "tora"))
    trajectories = [one for one in found if isinstance(one, Trajectory)]
    summary, kept, reasons = rerun(tmp_path, *trajectories)
    assert reasons == ["a program fails: exception"]
    assert (summary["read"], summary["programs"], len(kept)) == (30, 25, 29)
