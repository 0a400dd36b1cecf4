"""Fixtures: a report and training logs with invented figures, in the shape that a quickstart leaves behind."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alpha_umi.trajectory import AssistantMessage, Tool, ToolCall, ToolMessage, Trajectory, UserMessage

SPLITS = ("I1-Inst", "I1-Tool", "I1-Cat", "I2-Inst", "I2-Cat", "I3-Inst")
SYSTEMS = ("umi", "single-multitask")


@pytest.fixture
def trajectory() -> Trajectory:
    """One call, one observation, one answer."""
    tool = Tool.of("find_train", "Finds a train.", {"type": "object", "properties": {"to": {"type": "string"}}})
    return Trajectory(
        (tool,),
        (
            UserMessage("When does the train to Oslo leave?"),
            AssistantMessage("find_train has departures.", (ToolCall("c1", "find_train", '{"to": "Oslo"}'),)),
            ToolMessage("c1", '{"leaves": "09:14"} ```quoted```'),
            AssistantMessage("I have the time.", content="It leaves at 09:14."),
        ),
        id="t1",
    )


def _interval(value: float, width: float = 0.04) -> list[float]:
    return [max(0.0, value - width), min(1.0, value + width)]


def _static(rng: random.Random, level: float) -> dict[str, Any]:
    values = {m: min(1.0, level + rng.uniform(-0.05, 0.05)) for m in ("plan_acc", "act_em", "arg_f1", "rouge_l")}
    values["hallu"] = rng.uniform(0.0, 0.04)
    ci95 = {metric: _interval(value, 0.02) for metric, value in values.items()}
    return values | {"n": {"plan_acc": 731, "act_em": 420}, "ci95": ci95}


def _live(rng: random.Random, level: float) -> dict[str, Any]:
    rate = round(100 * level) / 100
    return {
        "pass_rate": rate,
        "ci95": _interval(rate, 0.07),
        "episodes": 100,
        "mean_steps": 3.1 + rng.random(),
        "mean_calls": 2.0 + rng.random(),
        "mean_generated_tokens": 180.0,
        "mean_prefill_tokens": 640.5,
        "stop_reasons": {"finished": 90, "gave_up": 7, "step_limit": 3},
        "by_kind": {"one": {"episodes": 60, "pass_rate": rate}, "chain": {"episodes": 40, "pass_rate": rate / 2}},
    }


@pytest.fixture
def report(trajectory: Trajectory) -> dict[str, Any]:
    """Two systems on six splits."""
    rng = random.Random(0)
    systems = {}
    for number, system in enumerate(SYSTEMS):
        levels = {split: 0.93 - 0.05 * at - 0.06 * number for at, split in enumerate(SPLITS)}
        stage = {"trajectories": 6400, "tokens_forwarded": 5_120_000, "loss_tokens": 1_200_000}
        stage |= {"flops": 6.1e13, "seconds": 301.5}
        systems[system] = {
            "static": {split: _static(rng, level) for split, level in levels.items()},
            "live": {split: _live(rng, level - 0.1) for split, level in levels.items()},
            "training": {"stages": {"global": stage, "local": stage}, **{k: 2 * v for k, v in stage.items()}},
        }
    return {
        "systems": systems,
        "comparison": "equal compute",
        "seconds": 725.2,
        "seconds_by_part": {"training": 603.0, "evaluation": 122.2},
        "tokens": {"training": 20_480_000, "evaluation": {"prefill": 512_000, "generated": 90_000}},
        "command": "umi quickstart --minutes 12",
        "seed": 0,
        "versions": {"alpha_umi": "0.1.0", "torch": "2.13.0"},
        "machine": "2 cores",
        "date": "2025-01-01",
        "example": {"stop_reason": "finished", "steps": 2, "trajectory": json.loads(trajectory.to_json())},
    }


@pytest.fixture
def write_logs(tmp_path: Path) -> Callable[[int], dict[str, Path]]:
    """Writes training logs with falling, noisy losses, this many steps long."""
    return lambda steps: _write_logs(tmp_path, steps)


def _write_logs(directory: Path, steps: int) -> dict[str, Path]:
    rng = random.Random(1)

    def loss(step: int, floor: float) -> float:
        return (6.0 * math.exp(-step / 40) + floor) * rng.uniform(0.8, 1.2)

    floors = {"planner": 0.2, "caller": 0.1, "summarizer": 0.05}
    logs = {}
    for system in SYSTEMS:
        lines: list[dict[str, Any]] = [
            {"stage": "global", "step": s, "lr": 1e-3, "loss": {r: loss(s, f) for r, f in floors.items()}}
            for s in range(steps)
        ]
        if system == "umi":
            lines += [
                {"stage": "local", "role": r, "step": s, "loss": {r: loss(90 + s, f / 2)}, "system": "umi"}
                for r, f in floors.items()
                for s in range(steps // 3)
            ]
        logs[system] = directory / f"{system}.jsonl"
        logs[system].write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return logs
