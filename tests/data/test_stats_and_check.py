"""What a set of trajectories holds, and what of it hurts training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpha_umi.data import convert_file
from alpha_umi.data.check import KINDS, check
from alpha_umi.data.stats import is_error, stats
from alpha_umi.run_directory import load_renderer
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, UserMessage, read_jsonl

FIND = Tool.of("find", "Finds.", {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]})


def asked(*messages: AssistantMessage | ToolMessage, tools: tuple[Tool, ...] = (FIND,)) -> Trajectory:
    return Trajectory(tools, (UserMessage("Find it."), *messages))


def called(name: str = "find", arguments: str = '{"q": "x"}', reply: str = "ok") -> Trajectory:
    answer = (ToolMessage("c", reply), AssistantMessage("So.", content="Here."))
    return asked(AssistantMessage("Now.", (ToolCall("c", name, arguments),)), *answer)


def test_steps_decisions_calls_errors_and_rationales_are_counted():
    two = (ToolCall("a", "find", "{}"), ToolCall("b", "find", "x", malformed=True))
    figures = stats([
        called(reply='{"error": "gone"}'),
        asked(
            AssistantMessage(None, two), ToolMessage("a", "1"), ToolMessage("b", "Error: no"), AssistantMessage("Hm."),
        ),
        asked(AssistantMessage(refusal="No.")),
    ]).to_json()  # fmt: skip
    assert figures["trajectories"] == 3
    assert figures["distinct_tools"] == 1
    assert figures["steps"] == 4
    assert figures["decisions"] == {"Caller": 2, "Summarizer": 1, "none": 1, "Give up": 1}
    assert (figures["calls"], figures["calls_a_step"], figures["malformed_calls"]) == (3, {"1": 1, "2": 1}, 1)
    assert (figures["observations"], figures["error_observations"]) == (3, 2)
    assert figures["rationale_coverage"] == 0.5
    assert figures["lengths"]["steps"] == {
        "mean": 1.33, "min": 1, "p5": 1.0, "p25": 1.0, "p50": 1.0, "p75": 1.5, "p95": 1.9, "max": 2,
    }  # fmt: skip


def test_tokens_are_counted_as_the_renderer_makes_them():
    renderer = load_renderer(None, 64)
    lengths = stats([called()], renderer).to_json()["lengths"]
    transcript = renderer.render(called())
    assert lengths["tokens"]["max"] == len(transcript.ids)
    assert sum(lengths[f"{role}_tokens"]["mean"] for role in ("caller", "summarizer")) < lengths["tokens"]["max"]


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ('{"error": "gone"}', True), ('{"error": ""}', False), ('{"a": 1}', False), ("ERROR: failed", True),
        ("no error here", False), ("Traceback (most recent call last)", True), ("{" * 99_999, False), ("", False),
        ("{'error': 'no such route', 'response': ''}", True), ("{'error': '', 'response': 'ok'}", False),
        ('{"error": "Unauthorized", "response": "cut', True), ('{"error": "", "response": "cut', False),
        ("{'error': None, 'response': 'ok'}", False),
    ],
)  # fmt: skip
def test_an_error_is_told_from_a_reply(text: str, failed: bool):
    assert is_error(text) is failed


LONG = "x" * 64
FINDINGS = {
    "long_name": asked(AssistantMessage(content="a"), tools=(Tool.of(LONG, "", {}),)),
    "same_name": asked(AssistantMessage(content="a"), tools=(FIND, FIND)),
    "broken_schema": asked(AssistantMessage(content="a"), tools=(Tool.of("f", "", {"type": "strin"}),)),
    "malformed_call": asked(AssistantMessage(tool_calls=(ToolCall("c", "", "find()", malformed=True),))),
    "undeclared_tool": called("fund"),
    "broken_arguments": called(arguments='{"q": 7}'),
    "unanswered_call": asked(
        AssistantMessage(tool_calls=(ToolCall("c", "find", '{"q": ""}'),)), AssistantMessage("Hm.")
    ),
    "cut_observation": called(reply="word " * 60 + "..."),
    "empty_observation": called(reply=" "),
    "no_decision": asked(AssistantMessage("Hm.")),
}


@pytest.mark.parametrize("kind", FINDINGS)
def test_what_hurts_training_is_found_and_nothing_else(kind: str):
    assert {finding.kind for finding in check([called(), FINDINGS[kind]]) if finding.index == 1} == {kind}


def test_a_duplicate_names_the_trajectory_it_repeats():
    (found,) = check([called(), called(reply="other"), called()])
    assert (found.kind, found.index, found.what) == ("duplicate", 2, "of trajectory 0")
    assert {*FINDINGS, "duplicate"} == set(KINDS)


def test_the_papers_test_file_has_the_faults_its_sources_name(real_data: Path, tmp_path: Path):
    convert_file(real_data / "alpha-umi" / "test_out_of_domain_a.json", "alpha-umi", tmp_path / "a.jsonl")
    kinds = [finding.kind for finding in check(read_jsonl(tmp_path / "a.jsonl"))]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "cut_observation": 120, "empty_observation": 112, "long_name": 48, "broken_arguments": 7,
    }  # fmt: skip
    assert json.loads(json.dumps(stats(read_jsonl(tmp_path / "a.jsonl")).to_json()))["steps"] == 728
