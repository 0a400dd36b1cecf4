"""The static protocol and live runs, with engines that know everything and with real models that know nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from alpha_umi.agent import Episode, Limits, StopReason, run_episodes
from alpha_umi.engines import Engine, Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.evaluation.live_run import run_toolworld
from alpha_umi.evaluation.metrics import StepPrediction, StepReference, paper_scores
from alpha_umi.evaluation.static import static_predictions
from alpha_umi.tools import ToolWorldSource
from alpha_umi.toolworld import SPLITS, Task, World, make_tasks, solve
from alpha_umi.trajectory import AssistantMessage, Decision, ToolCall, ToolMessage, Trajectory, UserMessage
from alpha_umi.transcript import ROLES, Renderer, Voice, Voices, caller_text, planner_text, single_text
from tests.models import random_model
from tests.tokenizers import nano


def tasks(count: int = 6) -> list[Task]:
    return [task for split in SPLITS for task in make_tasks(split, count, seed=1)]


def oracle_engine(trajectories: Sequence[Trajectory], voices: Voices = "roles") -> ScriptedEngine:
    """Says what the annotated trajectory says, by session (its number) and how often the voice has spoken."""
    said: dict[int, dict[str, list[str]]] = {}
    for number, trajectory in enumerate(trajectories):
        texts: dict[str, list[str]] = {"planner": [], "caller": [], "summarizer": [], "assistant": []}
        for message in trajectory.messages:
            if isinstance(message, AssistantMessage):
                texts["assistant"].append(single_text(message))
                texts["planner"].append(planner_text(message))
                if message.tool_calls:
                    texts["caller"].append(caller_text(message.tool_calls))
                elif message.content is not None:
                    texts["summarizer"].append(message.content)
        said[number] = texts
    return ScriptedEngine(lambda session, voice, text: said[session][voice].pop(0), Renderer(nano(), voices), 1 << 16)


@pytest.mark.parametrize("voices", ["roles", "single"])
def test_an_engine_that_says_what_the_oracle_says_solves_every_task(voices: Voices) -> None:
    todo = tasks()
    engine = oracle_engine([solve(task) for task in todo], voices)
    limits = Limits(max_new_tokens=dict.fromkeys((*ROLES, "assistant"), 4000), tokens=1 << 20)
    progress: list[tuple[int, int]] = []
    results = run_toolworld(
        engine, todo, limits=limits, concurrency=7, on_progress=lambda done, total: progress.append((done, total))
    )
    assert [result.task_id for result in results] == [task.id for task in todo]
    assert [(result.task_id, result.reason) for result in results if not result.solved] == []
    assert {result.stop_reason for result in results} == {"answered", "gave_up"}
    # what a refusal tells the user is no part of the roles' transcript, so it may read otherwise
    render = engine.renderer.render
    assert [render(result.trajectory).ids for result in results] == [render(solve(task)).ids for task in todo]
    assert progress == [(n + 1, len(todo)) for n in range(len(todo))]


def replaying(trajectories: Sequence[Trajectory], voices: Voices) -> ScriptedEngine:
    """Says what the gold trajectory says next, found by the length of the history."""
    renderer = Renderer(nano(), voices)
    said: dict[tuple[str, tuple[int, ...]], str] = {}
    for trajectory in trajectories:
        transcript = renderer.render(trajectory)
        for segment in transcript.segments:
            span = transcript.ids[segment.span_start : segment.span_stop]
            said[segment.kind, tuple(transcript.ids[: segment.start])] = renderer.decode(span)
    engine = ScriptedEngine(lambda session, voice, text: "", renderer, 1 << 16)
    engine._text = lambda request: said[request.voice, tuple(request.ids)]  # type: ignore[method-assign]
    return engine


@pytest.mark.parametrize("voices", ["roles", "single"])
def test_gold_texts_score_as_perfect(voices: Voices) -> None:
    gold = [solve(task) for task in tasks(3)]
    made = static_predictions(
        replaying(gold, voices), gold, batch_tokens=5000, max_new_tokens=dict.fromkeys((*ROLES, "assistant"), 4000)
    )
    scores = paper_scores([(reference, prediction) for _, reference, prediction in made])
    assert (scores.plan_acc, scores.act_em, scores.hallu, scores.arg_f1) == (1, 1, 0, 1)
    assert scores.rouge_l == pytest.approx(1)
    assert [name for name, _, _ in made] == [
        str(t.id) for t in gold for m in t.messages if isinstance(m, AssistantMessage)
    ]
    assert (made.too_long, made.cut) == (0, 0)


CALL = ToolCall("call_0", "look_up", '{"key": "a"}')
CONVERSATION = Trajectory(
    (),
    (
        UserMessage("Find it."),
        AssistantMessage("First.", (CALL,)),
        ToolMessage("call_0", "found"),
        AssistantMessage("Only thinking."),
        AssistantMessage("Now I know.", content="Found."),
        UserMessage("And the other?"),
        AssistantMessage("No.", refusal="I can't."),
    ),
)


def predict(script: Mapping[Voice, str], context: int = 8192) -> list[tuple[StepReference, StepPrediction]]:
    said = {voice: [text] for voice, text in script.items()}
    made = static_predictions(ScriptedEngine(said, Renderer(nano()), context), [CONVERSATION])
    return [(reference, prediction) for _, reference, prediction in made]


def test_every_decided_turn_is_a_step_and_an_undecided_one_is_none() -> None:
    steps = predict({"planner": "x\nNext: Give up"})
    assert [reference for reference, _ in steps] == [
        StepReference((), Decision.CALL, (CALL,), parameters={}),
        StepReference((), Decision.FINISH, (), "Found.", parameters={}),
        StepReference((), Decision.GIVE_UP, parameters={}),
    ]
    assert {prediction for _, prediction in steps} == {StepPrediction(Decision.GIVE_UP, rationale="x")}


def test_without_a_decision_the_caller_continues_from_the_generated_rationale() -> None:
    engine = ScriptedEngine({"planner": ["Hm."], "caller": ['{"name": "f", "arguments": {}}']}, Renderer(nano()))
    made = static_predictions(engine, [CONVERSATION])
    assert {(p.decision, p.calls, p.rationale) for _, _, p in made} == {
        (Decision.CALL, (ToolCall("call_0", "f", "{}"),), "Hm.")
    }
    prompts = [engine.renderer.decode(r.ids) for r in engine.requests if r.voice == "caller"]
    assert len(prompts) == 3
    assert all(prompt.endswith("<|planner|>Hm.") for prompt in prompts)
    assert "<|planner|>First." not in prompts[0]
    assert "<|planner|>First." in prompts[1]


def test_a_history_longer_than_the_context_counts_as_a_prediction_of_nothing() -> None:
    renderer = Renderer(nano())
    second = [segment for segment in renderer.render(CONVERSATION).segments if segment.kind == "planner"][1]
    script: dict[Voice, list[str]] = {"planner": ["x\nNext: Summarizer"], "summarizer": ["ok"]}
    engine = ScriptedEngine(script, renderer, context=second.start + 1)
    made = static_predictions(engine, [CONVERSATION])
    assert made.too_long == 2
    assert [prediction.decision for _, _, prediction in made] == [Decision.FINISH, Decision.CALL, Decision.CALL]
    assert made[2][2] == StepPrediction(Decision.CALL)


def separate(renderer: Renderer) -> Engine:
    return LocalEngine({role: random_model(renderer, seed) for seed, role in enumerate(ROLES)}, renderer)


def shared(renderer: Renderer) -> Engine:
    return LocalEngine(dict.fromkeys((*ROLES, "assistant"), random_model(renderer)), renderer)


@pytest.mark.parametrize(
    ("build", "voices"), [(separate, "roles"), (shared, "roles"), (shared, "single")], ids=["full", "shared", "single"]
)
def test_forked_histories_give_the_predictions_that_separate_sessions_would(build, voices: Voices) -> None:
    renderer = Renderer(nano(), voices)
    gold = [solve(task) for task in tasks(1)]
    few: dict[Voice, int] = dict.fromkeys((*ROLES, "assistant"), 10)
    engine = build(renderer)
    made = static_predictions(engine, gold, batch_tokens=8000, max_new_tokens=few)

    class Forgetful:
        """The same engine without forks or anything kept."""

        renderer, context = engine.renderer, engine.context

        def generate(self, requests: Sequence[Request], sampling: Sampling):
            spans = engine.generate(requests, sampling)
            engine.forget(request.session for request in requests)
            return spans

        def prefill(self, requests: Sequence[Request]) -> list[int]:
            return [0] * len(requests)

        def fork(self, parent: int, child: int, length: int) -> None: ...

        def forget(self, sessions) -> None: ...

    plain = static_predictions(Forgetful(), gold, batch_tokens=8000, max_new_tokens=few)
    assert list(made) == list(plain)
    assert made.prefill_tokens < plain.prefill_tokens / 2
    assert [engine.cached(session, voice) for session in range(50) for voice in engine._runners] == [0] * 50 * len(
        engine._runners
    )


@pytest.mark.parametrize(
    ("build", "voices"), [(separate, "roles"), (shared, "single")], ids=["three models", "one voice"]
)
def test_models_that_know_nothing_end_every_episode_for_a_named_reason(build, voices: Voices) -> None:
    engine = build(Renderer(nano(), voices))
    limits = Limits(steps=3, tokens=100, max_new_tokens=dict.fromkeys((*ROLES, "assistant"), 20))
    results = run_toolworld(engine, tasks(1), limits=limits, sampling=Sampling(temperature=1.0), concurrency=4)
    assert {result.stop_reason for result in results} <= {reason.value for reason in StopReason}
    assert not any(result.solved for result in results)
    assert all(result.steps <= 3 and result.generated_tokens <= 100 for result in results)


def test_an_episode_alone_and_in_a_crowd_goes_the_same_way() -> None:
    renderer = Renderer(nano())
    engine = separate(renderer)
    limits = Limits(steps=3, seconds=1e9, max_new_tokens=dict.fromkeys(ROLES, 15))
    todo = tasks(1)

    def episodes() -> list[Episode]:
        return [
            Episode(n, ToolWorldSource(World(t)), [UserMessage(t.instruction)], t.tools) for n, t in enumerate(todo)
        ]

    def run(concurrency: int) -> dict[int, list[int]]:
        outcomes = run_episodes(engine, episodes(), limits, Sampling(temperature=0.8, seed=3), concurrency)
        return {outcome.session: outcome.transcript.ids for outcome in outcomes}

    assert run(1) == run(2) == run(64)
