"""The strategies on ToolWorld, whose tools can go back, and with models whose probabilities are known."""

from __future__ import annotations

import asyncio
import json
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.agent import BestOfN, Dfsdt, Episode, Limits, React, Strategy, run_episodes
from alpha_umi.engines import Request, Sampling
from alpha_umi.engines.base import Conversation
from alpha_umi.engines.local import LocalEngine
from alpha_umi.errors import ToolError
from alpha_umi.evaluation.live_run import run_toolworld
from alpha_umi.tools import ToolWorldSource
from alpha_umi.tools.base import restore, reversible_tools, snapshot
from alpha_umi.toolworld import SPLITS, Task, World, fault_text, load_catalogue, make_tasks, solve
from alpha_umi.toolworld.open_world import OpenWorld
from alpha_umi.toolworld.values import draw
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage
from alpha_umi.transcript import ROLES, Renderer, Voice, caller_text
from tests.agent.conftest import EngineOf
from tests.models import random_model
from tests.tokenizers import nano

TASKS = [task for split in SPLITS for task in make_tasks(split, 8, seed=2)]
SEARCHES: tuple[Strategy, ...] = (React(), Dfsdt(), Dfsdt(width=3, back=1, redraws=0), BestOfN(n=3))


def replayed(task: Task, trajectory: Trajectory) -> tuple[World, list[str]]:
    """A fresh world after the calls of a trajectory, and what they gave."""
    world, given = World(task), list[str]()
    for message in trajectory.messages:
        for call in message.tool_calls if isinstance(message, AssistantMessage) else ():
            try:
                given.append(world.call(call.name, call.parsed() or {}))
            except ToolError as error:
                given.append(fault_text(error))
    return world, given


@given(st.integers(0, len(TASKS) - 1), st.integers(0, 1 << 30), st.sampled_from(SEARCHES))
def test_the_world_is_left_as_the_path_that_counts_leaves_it(
    engine_of: EngineOf, number: int, seed: int, strategy: Strategy
) -> None:
    """Whatever is called on whatever branch: the trajectory's calls alone, in a fresh world, do the same."""
    task, rng = TASKS[number], Random(seed)
    turns = [message for message in solve(task).messages if isinstance(message, AssistantMessage)]
    calls = [caller_text(turn.tool_calls) for turn in turns if turn.tool_calls] or ["none"]
    planner = ["I look.\nNext: Caller"] * 3 + ["Hm.\nNext: Give up", "I know.\nNext: Summarizer"]

    def script(session: int, voice: Voice, text: str) -> str:
        return rng.choice({"planner": planner, "caller": calls}.get(voice, ["So."]))

    world = World(task)
    episode = Episode(0, ToolWorldSource(world), [UserMessage(task.instruction)], task.tools)
    (outcome,) = run_episodes(engine_of(script, context=1 << 16), [episode], strategy=strategy)
    fresh, given_back = replayed(task, outcome.trajectory)
    made = [message.content for message in outcome.trajectory.messages if isinstance(message, ToolMessage)]
    if calls != ["none"]:
        assert given_back == made
        assert fresh.state() == world.state()
    assert Trajectory.from_json(outcome.trajectory.to_json()) == outcome.trajectory


@pytest.mark.parametrize("strategy", SEARCHES[1:], ids=["dfsdt", "wider", "best-of-n"])
def test_a_search_alone_and_in_a_crowd_goes_the_same_way(strategy: Strategy) -> None:
    renderer = Renderer(nano())
    engine = LocalEngine({role: random_model(renderer, seed) for seed, role in enumerate(ROLES)}, renderer)
    limits = Limits(steps=2, tokens=120, seconds=1e9, max_new_tokens=dict.fromkeys(ROLES, 12))

    def run(concurrency: int) -> dict[int, tuple[list[int], int]]:
        episodes = [
            Episode(n, ToolWorldSource(World(task)), [UserMessage(task.instruction)], task.tools)
            for n, task in enumerate(TASKS[::16])
        ]
        outcomes = run_episodes(engine, episodes, limits, Sampling(0.8, seed=3), concurrency, strategy=strategy)
        return {outcome.session: (outcome.transcript.ids, outcome.generated_tokens) for outcome in outcomes}

    assert run(1) == run(64)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("constrain", [False, True], ids=["free", "held to a grammar"])
def test_a_span_is_as_probable_as_plain_forwards_have_it(temperature: float, constrain: bool) -> None:
    renderer = Renderer(nano())
    model = random_model(renderer)
    engine = LocalEngine(dict.fromkeys(ROLES, model), renderer, constrain=constrain)
    task = TASKS[0]
    ids = renderer.encode(task.instruction)
    voices: tuple[Voice, ...] = ("planner", "planner", "caller")
    asked = [
        Request(n, voice, ids * (n + 1), 30, Conversation(task.tools, ()) if constrain else None)
        for n, voice in enumerate(voices)
    ]
    made = engine.generate(asked, Sampling(temperature, seed=5, logprobs=True))
    for request, one in zip(asked, made, strict=True):
        prompt = [*request.ids, *renderer.header(request.voice)]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *one.ids]])).logits[0, len(prompt) - 1 : -1].float()
        each = torch.log_softmax(logits, -1)[torch.arange(len(one.ids)), torch.tensor(one.ids)]
        assert one.logprob is not None
        if one.forced_tokens == 0:
            assert one.logprob == pytest.approx(each.sum().item(), abs=1e-2)
        else:
            assert each.sum().item() <= one.logprob <= 0, "forced tokens don't count"
    assert constrain == any(one.forced_tokens for one in made)


def test_probabilities_are_told_only_if_asked_for() -> None:
    renderer = Renderer(nano())
    engine = LocalEngine(dict.fromkeys(ROLES, random_model(renderer)), renderer)
    (made,) = engine.generate([Request(0, "planner", renderer.encode("x"), 5)], Sampling())
    assert made.logprob is None


def test_an_open_world_goes_back_too() -> None:
    world = OpenWorld("Book something.", count=300)
    source = ToolWorldSource(world)
    api = next(api for name, api in load_catalogue().apis.items() if api.op == "create" and name in source.reversible)
    tool, rng = api.tool, Random(0)
    arguments = {param.name: draw(rng, param.field, "train") for param in api.params}

    def made() -> str:
        return asyncio.run(source.call(tool.name, arguments))

    before = snapshot(source)
    first, second = made(), made()
    assert first != second, "it counts what was made"
    restore(source, before)
    assert made() == first
    assert reversible_tools(source) == {tool.name for tool in source.tools}
    with pytest.raises(TypeError):
        source.restore(None)


def test_live_results_count_all_branches(engine_of: EngineOf) -> None:
    said: dict[Voice, list[str]] = {
        "planner": ["I look.\nNext: Caller"] * 2 + ["Hm.\nNext: Give up"] + ["I know.\nNext: Summarizer"],
        "caller": [json.dumps({"name": "nothing", "arguments": {}})] * 9, "summarizer": ["So."],
    }  # fmt: skip
    (plain,) = run_toolworld(engine_of(said, context=1 << 16), TASKS[:1])
    (searched,) = run_toolworld(engine_of(said, context=1 << 16), TASKS[:1], strategy=Dfsdt())
    assert (plain.steps, plain.branches, plain.stop_reason) == (3, 0, "gave_up")
    assert (searched.steps, searched.branches, searched.stop_reason) == (4, 1, "answered")
    assert searched.generated_tokens > plain.generated_tokens
