"""StableToolBench's own result files: read, to be counted anew, and written, to be read by its scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpha_umi.errors import DataError
from alpha_umi.judges.aggregate import PublishedVotes, PublishedWins, published_votes, published_wins
from alpha_umi.judges.answers import Answers, read_object
from alpha_umi.judges.passing import PassVerdicts, published_steps
from alpha_umi.judges.verdicts import WinVerdict
from alpha_umi.trajectory import write_json


def pass_results(answers: Answers, verdicts: PassVerdicts) -> dict[str, dict[str, Any]]:
    """The content of a ``pass_rate_results`` file."""
    votes = published_votes(verdicts)
    found = {}
    for name in verdicts:
        steps, final = published_steps(answers[name])
        found[name] = {
            "query": answers[name].query,
            "tool_names": [_tool_name(tool) for tool in answers[name].tools],
            "answer_steps": steps,
            "final_step": final,
            "is_solved": {str(number): label for number, label in votes[name].items()},
        }
    return found


def win_results(wins: PublishedWins, reference: str, candidate: str, rounds: int) -> dict[str, dict[str, Any]]:
    """The content of a ``preference_results`` file."""
    done = {f"round_{number}": "complete" for number in range(rounds)}
    return {name: {reference: own, candidate: theirs, **done} for name, (own, theirs) in wins.items()}


def read_pass_results(path: Path) -> dict[str, dict[int, str]]:
    """The votes in a ``pass_rate_results`` file.

    Raises:
        DataError: It is no such file; names the query.
    """
    found: dict[str, dict[int, str]] = {}
    for name, value in read_object(path).items():
        try:
            found[name] = {int(number): str(label) for number, label in value["is_solved"].items()}
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError(path, f"query {name}: it has no is_solved with a label a round") from error
    return found


def read_win_results(path: Path, reference: str, candidate: str) -> dict[str, tuple[int, int]]:
    """The rounds won in a ``preference_results`` file.

    Raises:
        DataError: It is no such file, or of other systems; names the query.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, value in read_object(path).items():
        try:
            found[name] = (int(value[reference]), int(value[candidate]))
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(path, f"query {name}: it has no rounds won by {reference} and {candidate}") from error
    return found


def rounds_of(votes: PublishedVotes) -> int:
    """How many rounds a file has."""
    return max((number + 1 for labels in votes.values() for number in labels), default=0)


def write_pass_results(
    folder: Path, systems: Mapping[str, Mapping[str, Answers]], labels: Mapping[str, Mapping[str, PassVerdicts]]
) -> None:
    """Writes ``SYSTEM/SET_SYSTEM.json`` for every test set and system."""
    for name, judged in labels.items():
        for system, verdicts in judged.items():
            write_json(folder / system / f"{name}_{system}.json", pass_results(systems[system][name], verdicts))


def write_win_results(
    folder: Path, reference: str, verdicts: Mapping[str, Mapping[str, Mapping[str, WinVerdict]]], rounds: int
) -> None:
    """Writes ``SET_REFERENCE_CANDIDATE.json`` for every test set and candidate."""
    for name, candidates in verdicts.items():
        for candidate, found in candidates.items():
            content = win_results(published_wins(found), reference, candidate, rounds)
            write_json(folder / f"{name}_{reference}_{candidate}.json", content)


def _tool_name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    return (function if isinstance(function, Mapping) else tool).get("name", "")
