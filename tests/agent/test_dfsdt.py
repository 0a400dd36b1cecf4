"""The depth-first search: where it goes back to, what it tries there, and where it may not go back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from alpha_umi.agent import Dfsdt, Episode, EpisodeOutcome, Event, Limits, StopReason, run_one
from alpha_umi.engines.paper import PaperEngine
from alpha_umi.errors import UserError
from alpha_umi.run_directory import load_renderer
from alpha_umi.tools import Approval, ApprovalPolicy, CombinedSource
from alpha_umi.tools.schema import SchemaSource
from alpha_umi.trajectory import Tool, ToolMessage, UserMessage
from alpha_umi.transcript import Voice
from tests.agent.conftest import EngineOf, ReversibleShelf, ScoredEngine, Shelf

LOOK = '{"name": "look_up", "arguments": {"key": "%s"}}'
PUT = '{"name": "put", "arguments": {"key": "%s"}}'
CALL = "I need a thing.\nNext: Caller"
DONE = "I have it.\nNext: Summarizer"
NEVER = "Nothing here does that.\nNext: Give up"
ALLOWED = Approval(ApprovalPolicy.NEVER)


def script(planner: Sequence[str], calls: Sequence[str] = (), answer: str = "It is so.") -> dict[Voice, Sequence[str]]:
    return {
        "planner": planner,
        "caller": [call if "{" in call else LOOK % call for call in calls],
        "summarizer": [answer],
    }


def run(engine: ScoredEngine, shelf: Shelf | None = None, plan: Dfsdt | None = None, **options: Any) -> EpisodeOutcome:
    episode = Episode(0, shelf or ReversibleShelf(), [UserMessage("Find it.")])
    return run_one(engine, episode, strategy=plan or Dfsdt(), approval=ALLOWED, **options)


def observations(outcome: EpisodeOutcome) -> list[str]:
    return [message.content for message in outcome.trajectory.messages if isinstance(message, ToolMessage)]


def test_an_answer_on_the_first_path_ends_the_search_as_react_would(engine_of: EngineOf) -> None:
    outcome = run(engine_of(script([CALL, DONE], ["a"])))
    assert (outcome.stop_reason, outcome.answer, outcome.steps, outcome.branches) == ("answered", "It is so.", 2, 0)


def test_after_giving_up_it_goes_back_two_levels_and_takes_another_branch(engine_of: EngineOf) -> None:
    engine, shelf = engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", "b", "c"])), ReversibleShelf()
    outcome = run(engine, shelf)
    assert (outcome.stop_reason, outcome.answer, outcome.branches) == (StopReason.ANSWERED, "It is so.", 1)
    assert shelf.made == ["a", "b", "c"]
    assert shelf.kept == ["a", "c"]
    assert observations(outcome) == ["the value of a", "the value of c"]
    assert outcome.transcript.ids == engine.renderer.render(outcome.trajectory).ids
    assert outcome.refusal is None


def test_what_was_given_up_is_counted_too(engine_of: EngineOf) -> None:
    outcome = run(engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", "b", "c"])))
    assert outcome.steps == 5
    assert [call.call.parsed() for call in outcome.calls] == [{"key": key} for key in "abc"]
    written = sum(segment.span_stop - segment.span_start for segment in outcome.transcript.segments)
    assert outcome.generated_tokens > written / 2
    assert outcome.to_json()["branches"] == 1 and outcome.to_json()["strategy"] == "dfsdt"


def test_giving_up_at_once_ends_the_search_as_two_levels_up_there_is_nothing(engine_of: EngineOf) -> None:
    outcome = run(engine_of(script([NEVER, CALL, DONE], ["a"])))
    assert (outcome.stop_reason, outcome.refusal, outcome.steps) == (StopReason.GAVE_UP, "Nothing here does that.", 1)


def test_going_back_one_level_tries_again_after_giving_up_at_once(engine_of: EngineOf) -> None:
    outcome = run(engine_of(script([NEVER, CALL, DONE], ["a"])), plan=Dfsdt(back=1))
    assert (outcome.stop_reason, outcome.refusal, outcome.steps) == (StopReason.ANSWERED, None, 3)


def test_a_path_that_may_go_no_further_goes_back_one_level(engine_of: EngineOf) -> None:
    shelf = ReversibleShelf()
    outcome = run(engine_of(script([CALL], "abcdef")), shelf, limits=Limits(steps=2))
    assert shelf.made == ["a", "b", "c", "d", "e", "f"]
    assert (outcome.stop_reason, outcome.steps) == (StopReason.STEP_LIMIT, 6)


def test_the_first_giving_up_is_what_the_user_is_told_if_there_is_no_answer(engine_of: EngineOf) -> None:
    planner = [CALL, CALL, "First.\nNext: Give up", CALL, "Second.\nNext: Give up"]
    shelf = ReversibleShelf()
    outcome = run(engine_of(script(planner, "abc")), shelf)
    assert (outcome.stop_reason, outcome.refusal) == (StopReason.GAVE_UP, "First.")
    assert shelf.kept == ["a", "b"]
    assert observations(outcome) == ["the value of a", "the value of b"]


def test_the_budget_of_decisions_ends_the_search_by_name(engine_of: EngineOf) -> None:
    keys = [str(number) for number in range(100)]
    outcome = run(engine_of(script([CALL], keys)), plan=Dfsdt(decisions=20))
    assert (outcome.stop_reason, outcome.steps) == (StopReason.SEARCH_LIMIT, 20)


def test_paths_that_fail_for_different_reasons_leave_the_search_exhausted(engine_of: EngineOf) -> None:
    engine = engine_of(script([CALL, CALL, "x " * 900, CALL, DONE], ["a", "b", "c"]), context=900)
    outcome = run(engine, limits=Limits(steps=3, max_new_tokens={"planner": 5000}), plan=Dfsdt(width=1))
    assert outcome.stop_reason in (StopReason.CONTEXT_LIMIT, StopReason.EXHAUSTED)


def test_a_branch_that_only_repeats_a_call_is_drawn_again_and_never_made(engine_of: EngineOf) -> None:
    shelf = ReversibleShelf()
    respelt = '{"name": "look_up", "arguments": {"key":   "b"}}'
    outcome = run(engine_of(script([CALL, CALL, NEVER, CALL, CALL, DONE], ["a", "b", respelt, "c"])), shelf)
    assert shelf.made == ["a", "b", "c"]
    assert (outcome.stop_reason, outcome.branches) == (StopReason.ANSWERED, 2)
    assert observations(outcome) == ["the value of a", "the value of c"]


def test_the_same_call_for_ever_is_made_once_a_place(engine_of: EngineOf) -> None:
    shelf = ReversibleShelf()
    outcome = run(engine_of(script([CALL], ["a"])), shelf, limits=Limits(steps=4))
    assert outcome.stop_reason is StopReason.STEP_LIMIT
    assert shelf.made == ["a"] * 4
    assert outcome.trajectory.messages[-1].role != "assistant"


def test_another_branch_begins_with_other_tokens_and_goes_on_as_usual(engine_of: EngineOf) -> None:
    engine = engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", "b", "c"]))
    run(engine)
    hot = [(sampling.temperature, sampling.seed != 0) for sampling in engine.samplings]
    first, other, after = [(0.0, False)] * 5, [(0.7, True)] * 2, [(0.0, False)] * 2
    assert hot == [*first, *other, *after]


# ---- the prompt that shows what was tried ---------------------------------------------------------------------------


def test_the_prompt_shows_what_was_tried_in_that_step_only(engine_of: EngineOf) -> None:
    engine = engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", "b", "c"]))
    outcome = run(engine, plan=Dfsdt(prompt=True))
    shown = ["You have been at this point before" in engine.renderer.decode(request.ids) for request in engine.requests]
    assert shown == [False] * 5 + [True] * 2 + [False] * 2
    assert outcome.transcript.ids == engine.renderer.render(outcome.trajectory).ids
    hinted = engine.requests[5]
    assert hinted.conversation is not None
    hint = hinted.conversation.messages[-1]
    assert isinstance(hint, UserMessage)
    tried = json.loads(hint.content[hint.content.index("[") : hint.content.rindex("]") + 1])
    assert tried == [{"name": "look_up", "arguments": '{"key": "b"}', "result": "the value of b"}]


def test_the_papers_models_read_the_prompt_as_the_users(engine_of: EngineOf) -> None:
    engine = engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", "b", "c"]))
    run(engine, plan=Dfsdt(prompt=True))
    paper = PaperEngine({}, load_renderer(None, 4096))
    planner, caller = (paper.prompt(engine.requests[number]) for number in (5, 6))
    assert planner.index("the value of a") < planner.index("user: You have been at this point before")
    assert caller.index("user: You have been at this point before") < caller.rindex("assistant: I need a thing.")


# ---- calls that can't be taken back ---------------------------------------------------------------------------------


def test_it_does_not_go_back_past_a_call_with_lasting_effects(engine_of: EngineOf) -> None:
    shelf = Shelf()
    outcome = run(engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", PUT % "b", "c"])), shelf)
    assert (outcome.stop_reason, outcome.branches) == (StopReason.GAVE_UP, 0)
    assert shelf.made == ["a", "b"]


def test_below_such_a_call_it_still_branches(engine_of: EngineOf) -> None:
    shelf = Shelf()
    outcome = run(engine_of(script([CALL, CALL, NEVER, CALL, DONE], [PUT % "a", "b", "c"])), shelf)
    assert (outcome.stop_reason, shelf.made) == (StopReason.ANSWERED, ["a", "b", "c"])


def test_it_goes_back_past_it_if_that_is_allowed(engine_of: EngineOf) -> None:
    shelf = Shelf()
    engine = engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", PUT % "b", "c"]))
    outcome = run(engine, shelf, Dfsdt(over_writes=True))
    assert (outcome.stop_reason, shelf.made) == (StopReason.ANSWERED, ["a", "b", "c"])


def test_a_call_that_was_refused_has_no_lasting_effect(engine_of: EngineOf) -> None:
    shelf = Shelf()
    episode = Episode(0, shelf, [UserMessage("Find it.")])
    engine = engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", PUT % "b", "c"]))
    outcome = run_one(engine, episode, strategy=Dfsdt())
    assert (outcome.stop_reason, shelf.made) == (StopReason.ANSWERED, ["a", "c"])


def test_of_combined_sources_each_goes_back_as_it_can(engine_of: EngineOf) -> None:
    fixed, reversible = Shelf(), ReversibleShelf()
    source = CombinedSource([fixed, reversible])
    calls = ["a", '{"name": "put_2", "arguments": {"key": "b"}}', "c"]
    engine = engine_of(script([CALL, CALL, NEVER, CALL, DONE], calls))
    outcome = run_one(engine, Episode(0, source, [UserMessage("x")]), strategy=Dfsdt(), approval=ALLOWED)
    assert outcome.stop_reason is StopReason.ANSWERED
    assert (fixed.kept, reversible.made, reversible.kept) == (["a", "c"], ["b"], [])


def test_calls_that_the_client_makes_end_the_search_where_they_are(engine_of: EngineOf) -> None:
    tool = Tool.of("look_up", "", {"type": "object", "properties": {"key": {"type": "string"}}})
    episode = Episode(0, SchemaSource((tool,)), [UserMessage("x")])
    engine = engine_of(script([CALL, DONE], ["a"]))
    outcome = run_one(engine, episode, strategy=Dfsdt(), keep=True)
    assert outcome.stop_reason is StopReason.CLIENT_CALLS
    again = run_one(engine, episode.observe({"call_0": "found"}), strategy=Dfsdt())
    assert (again.stop_reason, observations(again)) == (StopReason.ANSWERED, ["found"])


# ---- around it ------------------------------------------------------------------------------------------------------


def test_more_answers_are_looked_for_and_the_first_is_the_runs(engine_of: EngineOf) -> None:
    said: dict[Voice, Sequence[str]] = {
        "planner": [CALL, CALL, DONE, CALL, DONE], "caller": [LOOK % key for key in "abc"],
        "summarizer": ["First.", "Second."],
    }  # fmt: skip
    outcome = run(engine_of(said), plan=Dfsdt(answers=2))
    assert (outcome.answer, outcome.branches, observations(outcome)[-1]) == ("First.", 1, "the value of b")


def test_a_conversation_goes_on_from_the_branch_that_was_taken(engine_of: EngineOf) -> None:
    engine = engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", "b", "c"]))
    episode = Episode(0, ReversibleShelf(), [UserMessage("Find it.")])
    run_one(engine, episode, strategy=Dfsdt(), keep=True)
    second = run_one(engine, episode.follow_up("Sure?"), strategy=Dfsdt())
    assert second.steps == 1
    assert observations(second) == ["the value of a", "the value of c"]
    assert second.transcript.ids == engine.renderer.render(second.trajectory).ids


def test_going_back_is_told(engine_of: EngineOf) -> None:
    events: list[Event] = []
    run(engine_of(script([CALL, CALL, NEVER, CALL, DONE], ["a", "b", "c"])), on_event=events.append)
    assert [event.text for event in events if event.kind == "branch"] == ["back to step 1, to try something else"]
    assert [event.kind for event in events].count("stop") == 1


@pytest.mark.parametrize("options", [{"width": 0}, {"decisions": 0}, {"back": 0}, {"answers": 0}, {"temperature": 0.0}])
def test_an_impossible_search_is_refused_by_name(options: Mapping[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        Dfsdt(**options)
