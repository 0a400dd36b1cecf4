"""Foreign data all the way: converted, trained on, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alpha_umi.trajectory import read_jsonl
from tests.integration.conftest import Done

Umi = Callable[..., Done]
STATIC = ("plan_acc", "act_em", "hallu", "arg_f1", "rouge_l")


def record(city: str, give_up: bool = False) -> dict[str, Any]:
    """As the data published with the paper looks."""
    end = [
        {"from": "assistant", "value": f"I know the weather of {city}. Next: conclusion."},
        {"from": "conclusion", "value": f"It rains in {city}."},
    ]
    if give_up:
        end = [{"from": "assistant", "value": "The service fails. Next: give up."}]
    return {
        "tools": [
            {"Name": "weather_for_city", "function": "The weather of a city", "input": {"city": "string, The city"}},
            {"Name": "time_for_city", "function": "The time in a city", "input": {"city": "string, The city"}},
        ],
        "instruction": f"How is the weather in {city}?",
        "conversations": [
            {"from": "user", "value": f"How is the weather in {city}?"},
            {"from": "assistant", "value": f"I ask for the weather of {city}. Next: caller."},
            {"from": "caller", "value": f'Action: weather_for_city\nAction Input: {{"city": "{city}"}}'},
            {"from": "observation", "value": '{"error": "", "response": "rain"}'},
            *end,
        ],
    }


def test_paper_data_is_converted_trained_on_and_evaluated(umi: Umi, here: Umi, recipe: Path, tmp_path: Path):
    cities = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo"]
    source = tmp_path / "raw.json"
    broken = {"tools": [], "conversations": [{"from": "observation", "value": "?"}]}
    source.write_text(json.dumps([*(record(c, c == "Lima") for c in cities), broken]), encoding="utf-8")

    done = umi("data", "convert", source, "--from", "alpha-umi", "--out", tmp_path / "tb.jsonl", "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert (summary["read"], summary["converted"]) == (7, 6)
    assert len(list(read_jsonl(tmp_path / "tb.jsonl"))) == 6

    done = here("train", recipe, f"data.source={tmp_path / 'tb.jsonl'}")
    assert done.code == 0, done.err
    assert "trained:" in done.out

    done = here(
        "eval",
        "static",
        "--model",
        tmp_path / "run",
        "--data",
        tmp_path / "tb.jsonl",
        "--json",
        tmp_path / "figures.json",
    )
    assert done.code == 0, done.err
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    paper, strict = figures["paper"], figures["strict"]
    assert {*paper, "hallu_args", "confusion"} <= set(strict)
    assert strict["n"]["act_em"] == 12, "strict mode scores every step"
    assert all(0 <= paper[name] <= 1 for name in STATIC)
    assert paper["n"]["plan_acc"] == 12, "two decided steps a trajectory"

    done = here("data", "inspect", tmp_path / "tb.jsonl", "--index", 2, "--model", tmp_path / "run")
    assert done.code == 0, done.err
    assert "weather_for_city" in done.out

    done = here("data", "inspect", tmp_path / "tb.jsonl", "--renderer", "paper", "--role", "caller")
    assert done.code == 0, done.err
    assert "You have assess to the following apis" in done.out and "Action Input: " in done.out
    assert here("data", "inspect", tmp_path / "tb.jsonl", "--renderer", "papyrus").code == 2
