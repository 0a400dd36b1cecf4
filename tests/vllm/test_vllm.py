"""A run's roles as LoRA modules of a real vLLM: the same spans as in this process, greedy, float32."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from alpha_umi.agent import Episode, Limits, run_one
from alpha_umi.engines import Ending, Engine, Generation, Request, Sampling
from alpha_umi.engines.base import Conversation
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.openai import OpenAIEngine, open_openai
from alpha_umi.engines.openai_config import OpenAIRun
from alpha_umi.engines.openai_vllm import Listening, VllmPlan
from alpha_umi.evaluation.static import StaticPredictions, static_predictions
from alpha_umi.evaluation.toolworld_suite import SPAN_TOKENS
from alpha_umi.run_directory import load_run
from alpha_umi.tools import ToolWorldSource
from alpha_umi.toolworld import World, make_tasks, solve
from alpha_umi.trajectory import Trajectory, UserMessage
from alpha_umi.transcript import ROLES, parse_calls
from tests.vllm.comparison import Recorded, differences

STEPS = 200
TIE = 1e-3
"""Two tokens whose logits differ by less may be chosen either way: sums are added up in another order."""

pytestmark = pytest.mark.timeout(3600)


def gold() -> list[Trajectory]:
    """Trajectories with 200 steps or a few more, of all kinds."""
    made: list[Trajectory] = []
    tasks = [islice(make_tasks(split, 40, seed=5), 40) for split in ("I1-Inst", "I1-Cat", "I2-Inst", "I3-Inst")]
    for task in chain.from_iterable(zip(*tasks, strict=True)):
        if sum(message.role == "assistant" for one in made for message in one.messages) >= STEPS:
            break
        made.append(solve(task))
    return made


@contextmanager
def remote(plan: VllmPlan, listening: Listening, constrain: bool = True, **more: Any) -> Iterator[OpenAIEngine]:
    """The engine of the printed engine file, with further settings of every endpoint."""
    file = plan.engine_file(listening)
    given = {key: value | {"timeout": 900, **more} if isinstance(value, dict) else value for key, value in file.items()}
    with open_openai(OpenAIRun.model_validate(given), constrain) as engine:
        yield engine


def local(run: Path, constrain: bool = True) -> LocalEngine:
    made = load_run(run, "lora")
    return LocalEngine(
        made.models, made.renderer, torch.float32, threads=1, adapters=made.adapters, variant=made.variant,
        constrain=constrain,
    )  # fmt: skip


def step_requests(run: Path, count: int) -> list[Request]:
    """Planners' first turns."""
    renderer = load_run(run, "lora").renderer
    made = []
    for session, trajectory in enumerate(gold()[:count]):
        transcript = renderer.render(replace(trajectory, messages=trajectory.messages[:1]))
        so_far = Conversation(trajectory.tools, trajectory.messages[:1])
        made.append(Request(session, "planner", transcript.ids, 96, so_far))
    return made


def report(name: str, figures: dict[str, Any]) -> None:
    """Leaves figures in the file that ``ALPHA_UMI_FIGURES`` names."""
    path = os.environ.get("ALPHA_UMI_FIGURES")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: figures}) + "\n")


def agreement(here: StaticPredictions, there: StaticPredictions) -> dict[str, int]:
    """In how many steps two engines decided, called and answered alike."""
    pairs = [(one[2], other[2]) for one, other in zip(here, there, strict=True)]
    return {
        "steps": len(pairs),
        "calls": sum(a.decision is b.decision and a.calls == b.calls for a, b in pairs),
        "all": sum(a == b for a, b in pairs),
    }


@pytest.mark.parametrize("constrain", [True, False], ids=["held", "free"])
def test_200_steps_have_the_same_calls_and_every_difference_is_a_tie(
    run: Path, plan: VllmPlan, listening: Listening, constrain: bool
):
    steps = gold()
    here = Recorded(local(run, constrain))
    ours = static_predictions(here, steps, max_new_tokens=SPAN_TOKENS)
    with remote(plan, listening, constrain) as engine:
        there = Recorded(engine)
        theirs = static_predictions(there, steps, max_new_tokens=SPAN_TOKENS)
        usage = engine.usage
    same = agreement(ours, theirs)
    found = list(differences(load_run(run, "lora"), here, there))
    told = [f"{one.voice} {one.at} {one.gap} {one.here.ended} {one.there.ended}" for one in found]
    report(f"constrain={constrain}", {
        **same, "spans": len(here.spans), "differences": told, "generated": ours.generated_tokens,
        "requests": usage.requests, "prompt": usage.prompt_tokens, "cached": usage.cached_tokens,
        "calls_made": sum(bool(one[2].calls) for one in theirs),
    })  # fmt: skip
    assert same["steps"] >= STEPS and same["calls"] >= 0.99 * same["steps"], told
    assert all(one.cut_for_repeating_itself or (one.gap is not None and abs(one.gap) < TIE) for one in found), told


def test_an_episode_has_the_same_transcript_as_in_this_process(run: Path, plan: VllmPlan, listening: Listening):
    task = next(task for task in make_tasks("I1-Inst", 50, seed=5) if task.kind == "single")

    def transcript(engine: Engine) -> Sequence[int]:
        episode = Episode(0, ToolWorldSource(World(task)), [UserMessage(task.instruction)], task.tools)
        return run_one(engine, episode, Limits(steps=4, max_new_tokens=SPAN_TOKENS)).transcript.ids

    with remote(plan, listening) as engine:
        assert transcript(engine) == transcript(local(run))


def test_each_module_is_another_model_than_the_backbone(run: Path, plan: VllmPlan, listening: Listening):
    (request,) = step_requests(run, 1)

    def told(**more: Any) -> Generation:
        with remote(plan, listening, constrain=False, **more) as engine:
            return engine.generate([request], Sampling(max_new_tokens=16, logprobs=True))[0]

    assert told().logprob != pytest.approx(told(model="backbone").logprob, abs=1e-3)
    (here,) = local(run, constrain=False).generate([request], Sampling(max_new_tokens=16, logprobs=True))
    assert told().logprob == pytest.approx(here.logprob, abs=1e-2)


def test_json_schemas_hold_the_caller_too(run: Path, plan: VllmPlan, listening: Listening):
    requests = [replace(request, voice="caller") for request in step_requests(run, 8)]
    with remote(plan, listening, structured_outputs="vllm", concurrency=8) as engine:
        texts = [engine.renderer.decode(made.ids) for made in engine.generate(requests, Sampling())]
    for text, request in zip(texts, requests, strict=True):
        assert request.conversation is not None
        (call,) = parse_calls(text)
        assert call.name in {tool.name for tool in request.conversation.tools} and call.parsed() is not None


def test_a_prompt_comes_from_the_servers_cache_the_second_time(run: Path, plan: VllmPlan, listening: Listening):
    (request,) = step_requests(run, 1)
    with remote(plan, listening) as engine:
        first, second = (engine.generate([request], Sampling(max_new_tokens=4))[0] for _ in range(2))
    assert second.ids == first.ids
    assert second.cached_tokens > 0.8 * len(request.ids)
    assert second.cached_tokens + second.prefill_tokens == len(request.ids) + 1


def test_a_transcript_beyond_the_servers_context_is_an_empty_span(run: Path, plan: VllmPlan, listening: Listening):
    (request,) = step_requests(run, 1)
    file = plan.engine_file(listening) | {"context": 1 << 20}
    with open_openai(OpenAIRun.model_validate(file)) as engine:
        (made,) = engine.generate([replace(request, ids=list(request.ids) * 200)], Sampling(max_new_tokens=4))
    assert (made.ids, made.ended) == ((), Ending.CONTEXT)


def test_the_server_listens_on_loopback_and_has_a_model_a_role(plan: VllmPlan, listening: Listening):
    listed = httpx2.get(f"{listening.base_url(0)}/models", timeout=60).json()
    assert {model["id"] for model in listed["data"]} == {"backbone", *ROLES}
