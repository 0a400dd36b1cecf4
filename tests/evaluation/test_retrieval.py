"""Recall of retrieval: the tools that a trajectory calls, found among those of all trajectories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alpha_umi.cli import app
from alpha_umi.errors import UserError
from alpha_umi.evaluation.retrieval import retrieval_recall
from alpha_umi.tools.retrieve import ToolIndex
from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, Trajectory, UserMessage, write_jsonl


def tool(name: str, description: str = "") -> Tool:
    return Tool.of(name, description, {"type": "object", "properties": {}})


def trajectory(instruction: str, tools: Sequence[Tool], *calls: str, malformed: bool = False) -> Trajectory:
    made = tuple(ToolCall(f"c{number}", name, "{}", malformed) for number, name in enumerate(calls))
    return Trajectory(tuple(tools), (UserMessage(instruction), AssistantMessage("Now.", made)))


WEATHER, PRICE, MAIL = tool("weather", "Weather of a city."), tool("price", "Price of a hotel."), tool("mail")
ASKED = [
    trajectory("What is the weather in the city?", [WEATHER, MAIL], "weather"),
    trajectory("What is the price of the hotel? And the weather?", [PRICE], "price", "price", "nowhere"),
    trajectory("What is the price?", [PRICE, MAIL], "price", "mail"),
    trajectory("Hello.", [MAIL]),
    trajectory("Mail!", [MAIL], "mail", malformed=True),
]


def test_recall_is_over_the_tools_of_all_trajectories() -> None:
    found = retrieval_recall(ASKED, ToolIndex, [1, 2, 3])
    assert found.recall == pytest.approx({1: 2.5 / 3, 2: 2.5 / 3, 3: 1.0})
    assert (found.instructions, found.without_calls, found.tools) == (3, 2, 3)
    low, high = found.ci95[1]
    assert 0.5 <= low < 2.5 / 3 < high <= 1


def test_tools_of_one_name_are_different_tools() -> None:
    other = tool("price", "Cost of a train.")
    both = [trajectory("Price of a hotel", [PRICE], "price"), trajectory("Cost of a train", [other], "price")]
    assert retrieval_recall(both, ToolIndex, [1]).recall == {1: 1.0}
    swapped = [trajectory("Cost of a train", [PRICE], "price"), trajectory("Price of a hotel", [other], "price")]
    assert retrieval_recall(swapped, ToolIndex, [1]).recall == {1: 0.0}


def test_data_without_calls_has_nothing_to_be_found() -> None:
    with pytest.raises(UserError, match="nothing to be found"):
        retrieval_recall(ASKED[3:], ToolIndex, [1])


def test_the_command_writes_the_figures_and_shows_them(tmp_path: Path) -> None:
    data, out = tmp_path / "data.jsonl", tmp_path / "figures.json"
    write_jsonl(data, ASKED)
    arguments = ["eval", "retrieval", "--data", str(data), "--k", "3", "--k", "1", "--json", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(out.read_text())
    assert figures["retriever"] == "bm25"
    assert list(figures["recall"]) == ["1", "3"]
    assert figures["n"] == {"instructions": 3, "without_calls": 2, "tools": 3}
    assert "83.3" in result.stdout and "100.0" in result.stdout
