"""What holds for every strategy: it ends for a named reason, within its limits, and leaves a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.agent import (
    BestOfN,
    ChosenStrategy,
    Dfsdt,
    Episode,
    EpisodeOutcome,
    Limits,
    React,
    StopReason,
    Strategy,
    chosen_strategy,
    open_trace,
    read_trace,
    run_episodes,
    run_one,
)
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.errors import DataError, UserError
from alpha_umi.trajectory import AssistantMessage, ToolMessage, Trajectory, UserMessage
from alpha_umi.transcript import Renderer, Voice
from tests.agent.conftest import EngineOf, ReversibleShelf, ScoredEngine, Shelf
from tests.tokenizers import nano

LOOK = '{"name": "look_up", "arguments": {"key": "%s"}}'
CALL = "I need a thing.\nNext: Caller"
DONE = "I have it.\nNext: Summarizer"
NEVER = "Nothing here does that.\nNext: Give up"
EVERY: Sequence[Strategy] = [React(), Dfsdt(), Dfsdt(width=3, back=1), BestOfN(), BestOfN(n=2)]
each_strategy = pytest.mark.parametrize(
    "strategy", EVERY, ids=lambda strategy: f"{strategy.name}-{EVERY.index(strategy)}"
)


def ask(session: int = 0) -> Episode:
    return Episode(session, ReversibleShelf(), [UserMessage("Find it.")])


def is_whole(trajectory: Trajectory) -> bool:
    """Whether every call is answered, once."""
    calls = [call.id for turn in trajectory.messages if isinstance(turn, AssistantMessage) for call in turn.tool_calls]
    return calls == [message.tool_call_id for message in trajectory.messages if isinstance(message, ToolMessage)]


# ---- engines that mean no good --------------------------------------------------------------------------------------

ADVERSARIES: dict[str, dict[Voice, Sequence[str]]] = {
    "never finishes a span": {"planner": ["and " * 9999], "caller": ["so " * 9999], "summarizer": ["x"]},
    "calls the same tool for ever": {"planner": [CALL], "caller": [LOOK % "a"], "summarizer": ["x"]},
    "calls ever new ones": {"planner": [CALL], "caller": [LOOK % n for n in range(999)], "summarizer": ["x"]},
    "writes a megabyte": {"planner": [CALL], "caller": [LOOK % ("a " * 500_000)], "summarizer": ["x"]},
    "invents roles": {
        "planner": ["<|end|><|oracle|>\nNext: Oracle", "Next: Tool"], "caller": ["<|planner|>Next: Give up"],
        "summarizer": ["x"],
    },
    "gives up on everything": {"planner": [NEVER], "caller": [""], "summarizer": ["x"]},
    "says nothing": {"planner": [""], "caller": [""], "summarizer": [""]},
}  # fmt: skip


@each_strategy
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_an_engine_that_means_no_good_is_ended_within_the_limits(
    strategy: Strategy, adversary: str, engine_of: EngineOf
) -> None:
    limits = Limits(steps=4, tokens=3000, max_new_tokens={"planner": 60, "caller": 60})
    outcome = run_one(engine_of(ADVERSARIES[adversary]), ask(), limits, strategy=strategy)
    assert outcome.stop_reason in (
        {StopReason.GAVE_UP} if adversary == "gives up on everything"
        else {StopReason.STEP_LIMIT, StopReason.TOKEN_LIMIT, StopReason.SEARCH_LIMIT, StopReason.EXHAUSTED}
    )  # fmt: skip
    assert outcome.generated_tokens <= 3000
    assert outcome.steps <= 60
    assert is_whole(outcome.trajectory)
    assert Trajectory.from_json(outcome.trajectory.to_json()) == outcome.trajectory


@each_strategy
def test_cancelling_ends_every_strategy(strategy: Strategy, engine_of: EngineOf) -> None:
    engine = engine_of({"planner": [CALL, CALL, NEVER], "caller": [LOOK % key for key in "abcdefgh"]})
    outcomes = list(run_episodes(engine, [ask()], cancelled=lambda: len(engine.requests) > 6, strategy=strategy))
    assert outcomes[0].stop_reason in (StopReason.CANCELLED, StopReason.GAVE_UP)
    assert len(engine.requests) <= 7
    assert is_whole(outcomes[0].trajectory)


@each_strategy
def test_time_over_ends_every_strategy(
    strategy: Strategy, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("alpha_umi.agent.run.time.monotonic", lambda: float(next(clock)))
    engine = engine_of({"planner": [CALL], "caller": [LOOK % key for key in "abcdefgh"]})
    outcome = run_one(engine, ask(), Limits(seconds=95), strategy=strategy)
    assert outcome.stop_reason is StopReason.TIME_LIMIT
    assert is_whole(outcome.trajectory)


@each_strategy
def test_one_voice_is_searched_like_three(strategy: Strategy) -> None:
    said: dict[Voice, list[str]] = {"assistant": ["I look.\nCall: " + LOOK % "a", "I know.\nAnswer: It is a."]}
    engine = ScoredEngine(said, Renderer(nano(), "single"))
    outcome = run_one(engine, ask(), strategy=strategy)
    assert (outcome.stop_reason, outcome.answer) == (StopReason.ANSWERED, "It is a.")


# ---- best of n ------------------------------------------------------------------------------------------------------


def several() -> dict[Voice, Sequence[str]]:
    """Three paths: an unsure answer, a certain one, giving up."""
    return {
        "planner": [CALL, "Perhaps.\nNext: Summarizer", CALL, "Surely.\nNext: Summarizer", NEVER],
        "caller": [LOOK % "a", LOOK % "b"],
        "summarizer": ["It is a.", "It is b."],
    }


def best(engine: ScriptedEngine, shelf: Shelf, plan: BestOfN | None = None) -> EpisodeOutcome:
    return run_one(engine, Episode(0, shelf, [UserMessage("x")]), strategy=plan or BestOfN(n=3))


def test_the_path_whose_planner_was_most_certain_is_taken(engine_of: EngineOf) -> None:
    engine, shelf = engine_of(several()), ReversibleShelf()
    engine.values = {"Surely": -0.01, "Perhaps": -3.0, "Nothing": -2.0}
    outcome = best(engine, shelf)
    assert (outcome.stop_reason, outcome.answer, outcome.steps, outcome.branches) == ("answered", "It is b.", 5, 2)
    assert (shelf.made, shelf.kept) == (["a", "b"], ["b"])
    assert outcome.transcript.ids == engine.renderer.render(outcome.trajectory).ids


def test_giving_up_counts_as_much_as_an_answer(engine_of: EngineOf) -> None:
    engine = engine_of(several())
    engine.values = {"Nothing": -0.01}
    outcome = best(engine, ReversibleShelf())
    assert (outcome.stop_reason, outcome.answer, outcome.refusal) == ("gave_up", None, "Nothing here does that.")


def test_only_the_first_path_is_as_the_sampling_has_it(engine_of: EngineOf) -> None:
    engine = engine_of(several())
    best(engine, ReversibleShelf())
    assert [sampling.temperature for sampling in engine.samplings] == [0.0] * 4 + [0.7] * 5
    assert len({sampling.seed for sampling in engine.samplings}) == 3
    assert all(sampling.logprobs for sampling in engine.samplings)


def test_no_other_path_is_begun_after_a_call_with_lasting_effects(engine_of: EngineOf) -> None:
    class Writing(Shelf):
        writes = frozenset({"look_up"})

    episode = Episode(0, Writing(), [UserMessage("x")])
    engine = engine_of(several())
    outcome = run_one(engine, episode, strategy=BestOfN(n=3))
    assert outcome.branches == 2, "refused calls change nothing"
    assert [call.error for call in outcome.calls] == ["not_approved"] * 2


def test_an_engine_that_gives_no_probabilities_is_refused_in_a_sentence() -> None:
    engine = ScriptedEngine(several(), Renderer(nano()))
    with pytest.raises(UserError, match="how probable"):
        best(engine, ReversibleShelf())
    assert engine.forgotten == [0]


@pytest.mark.parametrize("options", [{"n": 0}, {"temperature": 0.0}])
def test_an_impossible_number_of_paths_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        BestOfN(**options)


# ---- the trace ------------------------------------------------------------------------------------------------------


def tree_script() -> dict[Voice, Sequence[str]]:
    return {"planner": [CALL, CALL, NEVER, CALL, DONE], "caller": [LOOK % key for key in "abc"], "summarizer": ["ok"]}


def test_a_trace_holds_every_path_as_a_trajectory(tmp_path: Path, engine_of: EngineOf) -> None:
    with open_trace(tmp_path / "new" / "trace.jsonl") as trace:
        outcome = run_one(engine_of(tree_script()), ask(session=7), strategy=Dfsdt(), trace=trace)
    given_up, answered = read_trace(tmp_path / "new" / "trace.jsonl")
    assert answered.messages == outcome.trajectory.messages
    assert answered.tools == outcome.trajectory.tools
    assert given_up.messages[:3] == answered.messages[:3]
    branches = [path.extra["alpha_umi"]["branch"] for path in (given_up, answered)]
    assert branches == [
        {"session": 7, "step": 3, "ended": "gave_up", "chose": False},
        {"session": 7, "step": 5, "ended": "answered", "chose": True},
    ]


@each_strategy
def test_the_path_that_counts_is_in_the_trace(strategy: Strategy, tmp_path: Path, engine_of: EngineOf) -> None:
    with open_trace(tmp_path / "trace.jsonl") as trace:
        outcome = run_one(engine_of(tree_script()), ask(), strategy=strategy, trace=trace)
    chosen = [path for path in read_trace(tmp_path / "trace.jsonl") if path.extra["alpha_umi"]["branch"]["chose"]]
    assert [path.messages for path in chosen] == [outcome.trajectory.messages]


def test_steps_are_written_as_they_are_taken(tmp_path: Path, engine_of: EngineOf) -> None:
    path, seen = tmp_path / "trace.jsonl", list[int]()
    with open_trace(path) as trace:
        run_one(
            engine_of(tree_script()), ask(), strategy=Dfsdt(), trace=trace,
            on_event=lambda event: seen.append(path.read_text().count('"trace": "step"')),
        )  # fmt: skip
    assert sorted(set(seen)) == [0, 1, 2, 3, 4, 5]


def test_runs_of_one_file_are_kept_apart(tmp_path: Path, engine_of: EngineOf) -> None:
    with open_trace(tmp_path / "trace.jsonl") as trace:
        ended = {
            outcome.session: outcome.trajectory.messages
            for outcome in run_episodes(engine_of(tree_script()), map(ask, range(3)), strategy=Dfsdt(), trace=trace)
        }
    paths = [(path.extra["alpha_umi"]["branch"], path.messages) for path in read_trace(tmp_path / "trace.jsonl")]
    assert {branch["session"]: messages for branch, messages in paths if branch["chose"]} == ended


def test_a_trace_that_was_cut_is_read_up_to_there(tmp_path: Path, engine_of: EngineOf) -> None:
    path = tmp_path / "trace.jsonl"
    with open_trace(path) as trace:
        run_one(engine_of(tree_script()), ask(), strategy=Dfsdt(), trace=trace)
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b'"step": 5')])
    assert [one.extra["alpha_umi"]["branch"]["step"] for one in read_trace(path)] == [3, 4]


def test_a_file_that_is_no_trace_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(json.dumps({"trace": "begin", "session": 0, "tools": [], "messages": []}) + "\n[]\n")
    with pytest.raises(DataError, match="line 2"):
        list(read_trace(path))
    with pytest.raises(DataError, match="can't be read"):
        list(read_trace(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="can't write"), open_trace(path / "below"):
        pass


# ---- as it is typed -------------------------------------------------------------------------------------------------


def test_a_strategy_is_chosen_with_its_options_and_limits() -> None:
    assert chosen_strategy("react") == ChosenStrategy(React(), Limits())
    chosen = chosen_strategy("dfsdt:width=3,temperature=1.5,over_writes=yes,steps=5,tokens=1000", prompt=True)
    assert chosen.strategy == Dfsdt(width=3, temperature=1.5, over_writes=True, prompt=True)
    assert (chosen.limits.steps, chosen.limits.tokens, chosen.limits.seconds) == (5, 1000, 600.0)
    assert chosen_strategy("dfsdt:prompt=no", prompt=True).strategy == Dfsdt()
    assert chosen_strategy("best-of-n:n=8").limits.tokens == 8 * 8192


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mcts", "there are react, dfsdt, best-of-n"),
        ("dfsdt:breadth=3", "dfsdt has width"),
        ("dfsdt:name=x", "no option 'name'"),
        ("dfsdt:width=wide", "it must be a number"),
        ("dfsdt:width", "it must be a number"),
        ("dfsdt:prompt=maybe", "it must be yes or no"),
        ("dfsdt:width=0", "width is 0"),
        ("react:tokens=0", "tokens is 0"),
        ("react:width=2", "react has steps"),
    ],
)
def test_what_can_not_be_chosen_is_told_with_what_can(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        chosen_strategy(text)


@given(st.one_of(st.text(), st.builds("{}:{}={}".format, st.sampled_from(["react", "dfsdt", "best-of-n"]),
                                      st.sampled_from(["n", "width", "tokens", "seconds"]), st.text())))  # fmt: skip
def test_whatever_is_typed_is_a_strategy_or_a_sentence(text: str) -> None:
    try:
        chosen_strategy(text)
    except UserError as error:
        assert "\n" not in str(error).replace(text, "")
