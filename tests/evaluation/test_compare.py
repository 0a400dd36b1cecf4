"""Two evaluation folders set side by side, and the regression gate."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from alpha_umi.cli import app
from alpha_umi.errors import UserError
from alpha_umi.evaluation.compare import compare
from alpha_umi.evaluation.gate import failed, parse_condition
from alpha_umi.evaluation.kept_steps import scored_steps, write_steps
from alpha_umi.evaluation.metrics import StepPrediction, StepReference
from alpha_umi.trajectory import AssistantMessage, Decision, ToolCall, Trajectory, UserMessage, write_jsonl

BOOK, FIND = (ToolCall("c", name, '{"hotel": "Tamiro"}') for name in ("book", "find"))
TOOLS = ("book", "find")


def _steps(folder, split, predictions):
    """Three trajectories of a call and an answer; ``predictions`` are the calls made, None finishes."""
    scored = []
    for number, call in enumerate(predictions):
        wanted = BOOK if number % 2 else FIND
        made = StepPrediction(Decision.CALL, (call,)) if call else StepPrediction(Decision.FINISH, answer="Done.")
        scored += [
            (f"t{number}", StepReference(TOOLS, Decision.CALL, (wanted,)), made),
            (f"t{number}", StepReference(TOOLS, Decision.FINISH, answer="Done."),
             StepPrediction(Decision.FINISH, answer="Done.")),
        ]  # fmt: skip
    write_steps(folder / f"static-{split}-steps.jsonl", scored_steps(scored))


def _episodes(folder, split, solved):
    folder.mkdir(parents=True, exist_ok=True)
    told = []
    for number, one in enumerate(solved):
        extra = {"verdict": {"solved": one}, "kind": "single", "calls": 2 - one, "generated_tokens": 50}
        messages = (UserMessage(f"Book room {number}"), AssistantMessage(content="Done."))
        told.append(Trajectory((), messages, f"{split}-{number}", {"alpha_umi": extra}))
    write_jsonl(folder / f"live-{split}-episodes.jsonl", told)


@pytest.fixture
def folders(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    _steps(a, "I1-Inst", [FIND, BOOK, FIND, FIND])
    _steps(b, "I1-Inst", [FIND, FIND, FIND, None])
    _episodes(a, "I1-Inst", [True, True, False, True])
    _episodes(b, "I1-Inst", [True, False, True, True])
    _episodes(a, "I1-Tool", [True])
    _episodes(b, "I1-Tool", [False])
    return a, b


def test_every_metric_of_every_split_has_its_difference(folders):
    found = compare(*folders)
    assert found.splits["I1-Inst"]["act_em"].a == 0.75 and found.splits["I1-Inst"]["act_em"].b == 0.5
    assert found.splits["I1-Inst"]["plan_acc"].n == 8
    assert found.splits["I1-Tool"]["pass_rate"].difference == -1.0
    assert found.splits["all"]["pass_rate"].a == 0.8 and found.splits["all"]["pass_rate"].b == 0.6
    assert {"strict.act_em", "calls"} <= set(found.splits["I1-Inst"])


def test_differences_are_broken_down_by_tool_and_by_decision(folders):
    found = compare(*folders)
    assert list(found.tools) == ["book", "find"] and found.tools["book"].difference == -0.5
    assert found.kinds["finish"]["plan_acc"].difference == 0.0 and found.kinds["call"]["plan_acc"].difference == -0.25
    assert found.kinds["single"]["pass_rate"].n == 5


def test_what_b_breaks_and_repairs_is_listed(folders):
    found = compare(*folders)
    assert [unit.instruction for unit in found.broken] == ["Book room 1", "Book room 0"]
    assert [unit.group for unit in found.repaired] == ["I1-Inst-2"]


def test_what_only_one_has_is_counted_and_left_out(folders):
    a, b = folders
    _episodes(a, "I1-Tool", [True, True, True])
    found = compare(a, b)
    assert found.unpaired == 2 and found.splits["I1-Tool"]["pass_rate"].n == 1


def test_a_folder_without_an_evaluation_names_the_one_below_it(folders):
    a, _ = folders
    with pytest.raises(UserError, match=f"did you mean {a}"):
        compare(a.parent, a)


def test_evaluations_of_other_instructions_are_refused(folders, tmp_path):
    _episodes(tmp_path / "c", "I3-Inst", [True])
    with pytest.raises(UserError, match="in common"):
        compare(folders[0], tmp_path / "c")


def test_a_damaged_file_is_named_with_its_line(folders):
    path = folders[1] / "static-I1-Inst-steps.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 9"):
        compare(*folders)


@pytest.mark.parametrize(
    ("text", "fails"),
    [("pass_rate < -0.02", True), ("pass_rate<-0.5", False), ("I1-Inst:pass_rate < 0", False),
     ("I1-Tool:pass_rate <= -1", True), ("hallu > 0", False), ("strict.act_em < -.1", True)],
)  # fmt: skip
def test_a_gate_holds_or_does_not(folders, text, fails):
    assert bool(failed([parse_condition(text)], compare(*folders))) is fails


@pytest.mark.parametrize("text", ["", "pass_rate", "pass_rate < much", "solved < 0", "pass_rate == 0", "x:y:act_em<0"])
def test_a_condition_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="--fail-if"):
        parse_condition(text)


def test_a_condition_on_a_split_that_is_not_there_is_refused(folders):
    with pytest.raises(UserError, match="I3-Inst"):
        failed([parse_condition("I3-Inst:pass_rate < 0")], compare(*folders))


def test_the_command_prints_writes_and_exits_with_1_where_a_gate_fails(folders, tmp_path):
    a, b = map(str, folders)
    out = tmp_path / "out.json"
    passed = CliRunner().invoke(app, ["eval", "compare", a, b, "--json", str(out)])
    assert passed.exit_code == 0 and "B breaks what A solved: 2" in passed.output
    assert json.loads(out.read_text(encoding="utf-8"))["splits"]["all"]["pass_rate"]["better"] == 1
    stopped = CliRunner().invoke(app, ["eval", "compare", a, b, "--fail-if", "pass_rate < -0.02"])
    assert stopped.exit_code == 1 and "failed: pass_rate < -0.02" in stopped.output
