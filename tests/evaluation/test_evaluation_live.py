"""Live results: what is averaged, and what a failure's trace shows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from alpha_umi.evaluation.live import EpisodeResult, failures_markdown, live_scores
from alpha_umi.evaluation.traces import fenced, shortened, trace_markdown
from alpha_umi.trajectory import AssistantMessage, ToolCall, Trajectory, UserMessage

SOLVED = EpisodeResult(
    task_id="t1",
    split="I1-Inst",
    kind="one",
    solved=True,
    reason="all facts are in the answer",
    stop_reason="finished",
    steps=2,
    calls=1,
    prefill_tokens=300,
    generated_tokens=50,
    trajectory=Trajectory((), ()),
    instruction="When does the train to Oslo leave?",
)
FAILED = replace(
    SOLVED, task_id="t2", kind="chain", solved=False, reason="09:14 is\nmissing", stop_reason="step_limit", steps=12
)


def test_episodes_are_averaged_and_counted() -> None:
    scores = live_scores([SOLVED, SOLVED, replace(SOLVED, task_id="t3", kind="chain"), FAILED])
    assert (scores.pass_rate, scores.episodes, scores.mean_steps) == (0.75, 4, 4.5)
    assert (scores.mean_calls, scores.mean_generated_tokens, scores.mean_prefill_tokens) == (1.0, 50.0, 300.0)
    assert scores.stop_reasons == {"finished": 3, "step_limit": 1}
    assert scores.by_kind == {"chain": {"episodes": 2, "pass_rate": 0.5}, "one": {"episodes": 2, "pass_rate": 1.0}}
    assert scores.ci95[0] <= 0.75 <= scores.ci95[1]


def test_json_has_the_keys_of_the_report() -> None:
    written = json.loads(json.dumps(live_scores([SOLVED, FAILED]).to_json()))
    assert {"pass_rate", "ci95", "episodes", "mean_steps", "stop_reasons", "by_kind"} <= set(written)
    assert written["ci95"] == [0.0, 1.0]


def test_the_interval_is_deterministic_and_groups_episodes_by_task() -> None:
    results = [SOLVED, FAILED] * 20
    assert live_scores(results, seed=5) == live_scores(results, seed=5)
    assert live_scores(results).ci95 == (0.0, 1.0)


def test_no_episode_is_an_error() -> None:
    with pytest.raises(ValueError, match="no episodes"):
        live_scores([])


def test_a_failure_shows_instruction_roles_and_verdict(trajectory: Trajectory) -> None:
    text = failures_markdown([SOLVED, replace(FAILED, trajectory=trajectory)])
    assert "1 of 2 episodes failed" in text
    assert "verdict: 09:14 is missing" in text and "stop reason: `step_limit`" in text
    roles = [line for line in text.splitlines() if line.startswith("**")]
    assert roles == [f"**{r}**" for r in ("instruction", "planner", "caller", "tool", "planner", "summarizer")]
    assert "Next: Caller" in text and 'find_train {"to": "Oslo"}' in text
    assert text.count(FAILED.instruction) == 1


def test_only_the_first_failures_are_shown() -> None:
    text = failures_markdown([FAILED] * 5, limit=2)
    assert "5 of 5 episodes failed; the first 2 are shown." in text
    assert text.count("## ") == 2


def test_turns_without_decision_malformed_calls_and_refusals_are_told() -> None:
    trajectory = Trajectory(
        (),
        (
            UserMessage("Book it."),
            AssistantMessage("Hm."),
            AssistantMessage("Try.", (ToolCall("c", "", "{oops", malformed=True),)),
            AssistantMessage("No way.", refusal="I can't."),
        ),
    )
    text = trace_markdown(trajectory)
    assert "Hm.\n(no decision)" in text
    assert "(malformed) {oops" in text
    assert "Next: Give up" in text and "**told the user**\n\n```text\nI can't." in text


def test_content_cannot_leave_its_block_and_long_content_is_cut() -> None:
    assert fenced("a ```` b").startswith("`````text\n")
    assert shortened("x" * 10, 10) == "x" * 10
    cut = shortened("a" * 50 + "b" * 50, 20)
    assert cut.startswith("a" * 10) and cut.endswith("b" * 10) and "80 characters left out" in cut


def test_every_mean_has_its_interval_over_tasks() -> None:
    written = live_scores([SOLVED, replace(FAILED, generated_tokens=150, branches=2)]).to_json()
    assert (written["mean_generated_tokens"], written["mean_branches"]) == (100.0, 1.0)
    assert written["ci95_means"]["mean_generated_tokens"] == [50.0, 150.0]
    assert set(written["ci95_means"]) == {key for key in written if key.startswith("mean_")}
