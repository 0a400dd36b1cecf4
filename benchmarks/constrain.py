"""What holding spans to their grammar costs: decode time with and without, and the time to compile a tool list.

    python benchmarks/constrain.py [--model RUN] [--rows 1 8 64] [--tokens 48] [--repeats 5] [--threads 1]

The model is the shipped nano backbone unless a run is named; the histories are the oracle's, in ToolWorld. Prompts are
computed before the clock starts. ``share`` is what the guides take of the CPU time of held spans: what holding costs.
``ratio`` compares the CPU time a token with and without; the spans differ, and a forced token costs hardly anything, so
it falls below 1 where much is forced. The summarizer has no grammar and is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from alpha_umi.compute import probe_precision
from alpha_umi.engines.base import Conversation, Generation, Request, Sampling
from alpha_umi.engines.constrain import Constraint, Guide
from alpha_umi.engines.local import LocalEngine
from alpha_umi.run_directory import load_model, load_renderer, load_run, shipped_base
from alpha_umi.toolworld import Task, make_tasks, solve
from alpha_umi.transcript import ROLES, Renderer, Voice

VOICES: tuple[Voice, ...] = ("planner", "caller")


def _models(run: Path | None) -> tuple[dict[Voice, Any], Renderer]:
    if run is not None:
        loaded = load_run(run)
        return loaded.models, loaded.renderer
    return dict.fromkeys(ROLES, load_model(str(shipped_base()))), load_renderer(None, 256)


def _requests(tasks: Sequence[Task], voice: Voice, renderer: Renderer, tokens: int) -> list[Request]:
    """A voice's first turn in the oracle's solution of each task, if it has one there."""
    out: list[Request] = []
    for number, task in enumerate(tasks):
        transcript = renderer.render(solve(task))
        first = next((segment for segment in transcript.segments if segment.kind == voice), None)
        if first is not None:
            out.append(Request(number, voice, transcript.ids[: first.start], tokens, Conversation(task.tools, ())))
    return out


@contextmanager
def _clocked() -> Iterator[list[float]]:
    """Adds up the CPU seconds spent in guides, in a list of one."""
    spent = [0.0]

    def clocked(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            started = time.process_time()
            result = method(*given)
            spent[0] += time.process_time() - started
            return result

        return call

    with ExitStack() as stack:
        for name in ("forced", "take", "allowed", "surplus"):
            stack.enter_context(patch.object(Guide, name, clocked(getattr(Guide, name))))
        yield spent


def _timed(engine: LocalEngine, requests: Sequence[Request], sampling: Sampling) -> tuple[float, list[Generation]]:
    """Seconds to generate the spans of prompts that are computed."""
    engine.forget(request.session for request in requests)
    engine.prefill(requests)
    started = time.process_time()
    made = engine.generate(requests, sampling)
    return time.process_time() - started, made


def _decode(engines: dict[bool, LocalEngine], requests: Sequence[Request], temperature: float, repeats: int) -> Any:
    """Milliseconds a token without and with the constraint, by turns; the ratio is the median of the pairs' ratios."""
    sampling = Sampling(temperature=temperature, seed=1)
    times: dict[bool, list[float]] = {False: [], True: []}
    shares: list[float] = []
    made: dict[bool, list[Generation]] = {}
    for repeat in range(repeats + 1):
        for held in (False, True) if repeat % 2 else (True, False):
            with _clocked() as spent:
                seconds, made[held] = _timed(engines[held], requests, sampling)
            if repeat and held:
                shares.append(spent[0] / seconds)
            if repeat:  # the first one compiles and warms up
                times[held].append(seconds / sum(len(generation.ids) for generation in made[held]) * 1000)
    ratios = [guided / plain for plain, guided in zip(times[False], times[True], strict=True)]
    return {
        "ms_a_token": [round(statistics.median(times[held]), 3) for held in (False, True)],
        "share": round(statistics.median(shares), 3),
        "ratio": round(statistics.median(ratios), 3),
        "tokens": [sum(len(generation.ids) for generation in made[held]) for held in (False, True)],
        "forced": sum(generation.forced_tokens for generation in made[True]),
        "finished": [sum(generation.finished for generation in made[held]) for held in (False, True)],
    }


def _compile(tasks: Sequence[Task], renderer: Renderer) -> dict[str, float]:
    """Milliseconds to compile a tool list's grammar, and to take a compiled one."""
    constraint = Constraint(renderer, len(tasks))
    requests = _requests(tasks, "caller", renderer, 1)
    spent: list[list[float]] = []
    for _ in range(2):
        spent.append([])
        for request in requests:
            started = time.process_time()
            constraint.guide(request)
            spent[-1].append((time.process_time() - started) * 1000)
    first, again = spent
    names = ("compile_median", "compile_most", "cached_median")
    figures = (statistics.median(first), max(first), statistics.median(again))
    return {name: round(figure, 3) for name, figure in zip(names, figures, strict=True)}


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    import torch

    models, renderer = _models(given.model)
    dtype = torch.bfloat16 if probe_precision() == "bf16" else torch.float32
    engines = {
        held: LocalEngine(models, renderer, dtype, threads=given.threads, context=2048, constrain=held)
        for held in (False, True)
    }
    tasks = list(make_tasks("I1-Inst", max(given.rows)))
    report: dict[str, Any] = {"precision": str(dtype), "compile_ms": _compile(tasks, renderer)}
    for rows in given.rows:
        for voice in VOICES:
            requests = _requests(tasks[:rows], voice, renderer, given.tokens)
            for temperature in (0.0, 0.7):
                name = f"{voice}, {rows} rows, temperature {temperature}"
                report[name] = _decode(engines, requests, temperature, given.repeats)
                print(name, json.dumps(report[name]), flush=True)  # noqa: T201
    print(json.dumps(report, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
