"""Carries out a study's entries, one after another, and keeps what each gave.

WORK/NAME/           the run directory and its evaluation
RESULTS/NAME.json    figures, costs and every instruction's outcome: all that a report needs, without weights

An entry whose result is there with the same fingerprint isn't carried out again, so a study that was stopped goes on,
and results that were brought along from elsewhere count. An entry that only others need (its result is there, its
weights are not) is trained again when one of them is.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from alpha_umi.agent import React, chosen_strategy
from alpha_umi.agent.chosen import ChosenStrategy
from alpha_umi.evaluation.compare import read_units
from alpha_umi.evaluation.kept import PROTOCOL, OnProgress
from alpha_umi.evaluation.toolworld_suite import evaluate_live, evaluate_static
from alpha_umi.run_directory import RunInfo, read_info
from alpha_umi.studies.compose import compose_run
from alpha_umi.studies.entries import Compose, Entry, Search, Train
from alpha_umi.studies.scales import Scale
from alpha_umi.toolworld import SPLITS, make_tasks, solve
from alpha_umi.training.glpft import train
from alpha_umi.training.job import Progress
from alpha_umi.training.recipe import GlpftRecipe, parse_recipe
from alpha_umi.trajectory import write_json
from alpha_umi.transcript import Role

Result = dict[str, Any]
"""The contents of a result's file."""

_METRICS = ("plan_acc", "act_em", "hallu", "arg_f1", "rouge_l")
_EPISODE = ("pass_rate", "calls", "generated_tokens")


@dataclass(frozen=True)
class Study:
    """Where a study's entries are carried out.

    Attributes:
        scale: How large it is.
        entries: Those it consists of, what is needed first.
        work: Run directories; may be deleted once all results are there.
        results: One JSON file an entry.
        on_step: Told of every training step, with the entry's name.
        on_progress: Told of an evaluation: what, done, in all.
    """

    scale: Scale
    entries: Sequence[Entry]
    work: Path
    results: Path
    on_step: Callable[[str, Progress], None] = lambda name, progress: None
    on_progress: OnProgress = lambda name, done, total: None

    def run(self, on_entry: Callable[[Entry, bool], None] = lambda entry, done: None) -> list[Result]:
        """Every result, in the order of the entries; ``on_entry`` is told of each, and whether it was there."""
        found = []
        for entry in self.entries:
            result = self.finished(entry)
            on_entry(entry, result is not None)
            found.append(result if result is not None else self._carry_out(entry))
        return found

    def finished(self, entry: Entry) -> Result | None:
        """The entry's result, if it is there and of this very entry."""
        try:
            result = json.loads((self.results / f"{entry.name}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return result if result.get("fingerprint") == self.fingerprint(entry) else None

    def fingerprint(self, entry: Entry) -> str:
        """Names everything that decides the result: the entry, those it needs, the instructions, the world."""
        parts = {
            "entry": entry.described(), "needs": [self.fingerprint(self._named(name)) for name in entry.needs],
            "suite": asdict(self.scale.suite), "protocol": PROTOCOL, "world": world_fingerprint(),
        }  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _named(self, name: str) -> Entry:
        return next(entry for entry in self.entries if entry.name == name)

    def _carry_out(self, entry: Entry) -> Result:
        started = time.perf_counter()
        directory, chosen = self._prepared(entry), self._strategy(entry)
        trained = time.perf_counter() - started
        static, live = self._evaluated(entry, directory, chosen)
        info = read_info(directory)
        assert info is not None
        result: Result = {
            "name": entry.name, "system": entry.system, "size": entry.size, "seed": entry.seed, "about": entry.about,
            "fingerprint": self.fingerprint(entry), "training": self._costs(entry, info),
            "static": static, "live": live, "outcomes": outcomes(self._evaluation(entry)),
            "seconds": {"training": round(trained, 1), "all": round(time.perf_counter() - started, 1)},
            "versions": info.versions, "machine": f"{platform.machine()}, {platform.system()}",
            "date": datetime.now(UTC).date().isoformat(),
        }  # fmt: skip
        write_json(self.results / f"{entry.name}.json", result)
        return result

    # ---- making the run

    def _prepared(self, entry: Entry) -> Path:
        """The entry's run directory, trained or put together."""
        match entry.plan:
            case Train():
                return self._trained(entry, entry.plan)
            case Compose(parts):
                taken: dict[Role, tuple[Path, Role]] = {}
                for role, (name, theirs) in parts.items():
                    taken[role] = self._prepared(self._named(name)), theirs
                return compose_run(self.work / entry.name, taken)
            case Search(run):
                return self._prepared(self._named(run))

    def _trained(self, entry: Entry, plan: Train) -> Path:
        out = self.work / entry.name
        content = {**plan.recipe, "out": str(out)}
        if plan.stage_1 is not None:
            content["stage_1"] = str(self._prepared(self._named(plan.stage_1)))
        if plan.flops_of is not None:
            stage = dict(content["global_stage"])
            stage["trajectories"] = self._trajectories_for(entry, plan.flops_of)
            content["global_stage"] = stage
        recipe = parse_recipe(content, entry.name)
        assert isinstance(recipe, GlpftRecipe)
        train(recipe, lambda progress: self.on_step(entry.name, progress))
        return out

    def _trajectories_for(self, entry: Entry, other: str) -> int:
        """As many trajectories as cost what the other entry cost, by what one of its own system's costs."""
        alike = next(one for one in self.entries if (one.system, one.size, one.seed) == (
            entry.system.partition("-")[0], entry.size, entry.seed,
        ))  # fmt: skip
        costs = {name: self._result(name)["training"] for name in (alike.name, other)}
        each = costs[alike.name]["flops"] / costs[alike.name]["trajectories"]
        return round(costs[other]["flops"] / each)

    def _result(self, name: str) -> Result:
        entry = self._named(name)
        return self.finished(entry) or self._carry_out(entry)

    def _costs(self, entry: Entry, info: RunInfo) -> dict[str, Any]:
        """What training took; a stage that was taken over from another entry counts."""
        match entry.plan:
            case Train(_, stage_1, _):
                stages = dict(info.costs)
                if stage_1 is not None:
                    stages["global"] = self._result(stage_1)["training"]["stages"]["global"]
            case Compose(parts):
                stages = {}
                for name in dict.fromkeys(name for name, _ in parts.values()):
                    for stage, cost in self._result(name)["training"]["stages"].items():
                        stages[f"{name} {stage}"] = cost
            case Search(run):
                stages = self._result(run)["training"]["stages"]
        keys = ("trajectories", "tokens_forwarded", "loss_tokens", "flops", "seconds")
        return {"stages": stages, **{key: sum(stage[key] for stage in stages.values()) for key in keys}}

    # ---- evaluating it

    def _strategy(self, entry: Entry) -> ChosenStrategy:
        if not isinstance(entry.plan, Search):
            return chosen_strategy("react")
        text = entry.plan.strategy
        if entry.plan.tokens_of is not None:
            text = text.format(n=self._paths(entry.plan.run, entry.plan.tokens_of))
        return chosen_strategy(text)

    def _paths(self, run: str, other: str) -> int:
        """How many of its own episodes write as much as one of the other entry."""
        own, theirs = (_mean_tokens(self._result(name)) for name in (run, other))
        return max(2, round(theirs / own))

    def _evaluation(self, entry: Entry) -> Path:
        return self.work / "evaluation" / entry.name

    def _evaluated(
        self, entry: Entry, directory: Path, chosen: ChosenStrategy
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        from alpha_umi.engines.load import open_engine

        folder, suite = self._evaluation(entry), self.scale.suite

        def told(part: str, done: int, total: int) -> None:
            self.on_progress(f"{entry.name} {part}", done, total)

        with open_engine(directory) as engine:
            static = evaluate_static(engine, suite, folder, told) if isinstance(chosen.strategy, React) else {}
            live = evaluate_live(engine, suite, folder, told, self.scale.concurrency, chosen)
        paper = {split: scores["paper"] | {"strict": scores["strict"]} for split, scores in static.items()}
        return paper, live


def outcomes(folder: Path) -> dict[str, list[list[Any]]]:
    """Every step and episode by split, as rows: name, step (-1: an episode), kind, then its figures.

    A step's figures are Plan ACC, Act. EM, Hallu., Arg. F1 and ROUGE-L by the paper's rules, an episode's whether it
    was solved, its calls and the tokens written.
    """
    rows: dict[str, list[list[Any]]] = {}
    for (split, name, step), unit in read_units(folder).items():
        figures = [unit.scores.get(metric) for metric in (_METRICS if step >= 0 else _EPISODE)]
        short = [None if value is None else round(value, 4) for value in figures]
        rows.setdefault(split, []).append([name, step, unit.kind, *short])
    return rows


def _mean_tokens(result: Result) -> float:
    """Tokens written an episode, over all splits."""
    episodes = sum(one["episodes"] for one in result["live"].values())
    return sum(one["episodes"] * one["mean_generated_tokens"] for one in result["live"].values()) / episodes


@cache
def world_fingerprint() -> str:
    """Names ToolWorld as it is: its catalogue, its instructions and its oracle, by a few tasks of each split."""
    digest = hashlib.sha256()
    for split in ("train", *SPLITS):
        for task in make_tasks(split, 4):
            digest.update(task.to_json().encode())
            digest.update(solve(task).to_json().encode())
    return digest.hexdigest()[:16]
