"""Recorded calls that answer again, and what a call that was not recorded is told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.agent import ChosenStrategy, Dfsdt, React, Strategy
from alpha_umi.engines.base import Sampling
from alpha_umi.errors import DataError, ToolError, UserError
from alpha_umi.trajectory import AssistantMessage, Message, Tool, ToolCall, ToolMessage, Trajectory, UserMessage
from alpha_umi.worlds import catalogue
from alpha_umi.worlds.episodes import EpisodeStore
from alpha_umi.worlds.recorded import RecordedSource, recorded_calls
from alpha_umi.worlds.running import run_world
from tests.worlds.scripted import ROOM, agent

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = (Tool.of("weather", "", PARAMETERS), Tool.of("idle", "", PARAMETERS))


def trajectory(*calls: tuple[dict[str, Any], str, bool]) -> Trajectory:
    messages: list[Message] = [UserMessage("How is the weather?")]
    for number, (arguments, reply, failed) in enumerate(calls):
        call = ToolCall(f"c{number}", "weather", json.dumps(arguments))
        extra = {"tooltalk": {"exception": True}} if failed else {}
        messages += [AssistantMessage("", (call,)), ToolMessage(call.id, reply, extra)]
    return Trajectory(TOOLS, tuple(messages))


CALLS = (
    ({"city": "Rome", "days": 1}, "sun", False),
    ({"city": "Oslo"}, "snow", False),
    ({"city": "Oslo"}, "more snow", False),
    ({"city": "Atlantis"}, "it has sunk", True),
)


def said(source: RecordedSource, tool: str = "weather", /, **arguments: Any) -> str:
    try:
        return asyncio.run(source.call(tool, arguments))
    except ToolError as error:
        return f"{error.kind}: {error}"


def test_recorded_calls_answer_in_their_order_and_failures_fail_again() -> None:
    source = RecordedSource(trajectory(*CALLS))
    assert said(source, days=1, city="Rome") == said(source, city="Rome", days=1) == "sun"
    assert [said(source, city="Oslo") for _ in range(3)] == ["snow", "more snow", "more snow"]
    assert said(source, city="Atlantis") == "api_error: it has sunk"


def test_what_happened_before_the_turn_has_been_answered() -> None:
    assert said(RecordedSource(trajectory(*CALLS), begun=5), city="Oslo") == "more snow"


def test_a_search_that_goes_back_is_answered_as_before() -> None:
    source = RecordedSource(trajectory(*CALLS))
    state = source.snapshot()
    assert said(source, city="Oslo") == "snow"
    source.restore(state)
    assert said(source, city="Oslo") == "snow"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"city": "Rom", "days": 1}, "there is no data for this city"),
        ({"city": "Rome"}, "days is missing (type integer)"),
        ({"city": "Oslo", "days": 2}, "there is no data with days"),
        ({}, "city is missing (type string)"),
    ],
)
def test_a_call_that_was_not_recorded_is_told_how_it_differs(arguments: dict[str, Any], error: str) -> None:
    assert said(RecordedSource(trajectory(*CALLS)), **arguments) == f"not_recorded: {error}"


def test_a_tool_that_was_never_called_has_no_data() -> None:
    assert said(RecordedSource(trajectory(*CALLS)), "idle", city="Rome") == "not_recorded: idle has no data"


@given(st.dictionaries(st.sampled_from(["city", "days", "x"]), st.one_of(st.text(), st.integers(), st.none())))
def test_an_error_never_tells_a_recorded_value(arguments: dict[str, Any]) -> None:
    told = said(RecordedSource(trajectory(*CALLS)), **arguments)
    assert not any(city in told for city in ("Rome", "Oslo", "Atlantis")) or not told.startswith("not_recorded")


@pytest.mark.parametrize(("name", "path", "tasks"), [
    ("tooltalk", "tooltalk/easy", 28), ("traject-bench", "traject-bench/sequential/Finance.json.xz", 100),
])  # fmt: skip
@pytest.mark.parametrize("strategy", [React(), Dfsdt()])
def test_the_benchmarks_are_replayed_the_same_each_time(
    real_data: Path, tmp_path: Path, name: str, path: str, tasks: int, strategy: Strategy
) -> None:
    written = []
    for concurrency in (1, 5):
        world = catalogue.recorded(name, [real_data / path])
        (split,) = world.sets
        assert len(world.sets[split]) >= tasks
        world, folder = world.of({split: world.sets[split][:2]}), tmp_path / str(concurrency)
        with EpisodeStore(folder, world.settings) as store:
            run_world(agent(), world, store, ChosenStrategy(strategy, ROOM, Sampling(0.5)), concurrency=concurrency)
        written.append((folder / f"live-{split}-episodes.jsonl").read_bytes())
    assert written[0] == written[1] and written[0].count(b"\n") == 2


def test_every_recorded_call_of_tooltalk_is_answered_as_it_was(real_data: Path) -> None:
    world = catalogue.recorded("tooltalk", [real_data / "tooltalk"])
    (tasks,) = world.sets.values()
    assert len({task.id for task in tasks}) == len(tasks) > 78
    assert all(isinstance(task.messages[-1], UserMessage) for task in tasks)
    sources = [asyncio.run(task.open()) for task in tasks]
    recordings = {source.trajectory.id: source.trajectory for source in sources if isinstance(source, RecordedSource)}
    assert len(recordings) == 78
    for trajectory in recordings.values():
        source = RecordedSource(trajectory)
        for call in recorded_calls(trajectory.messages):
            reply = said(source, call.tool, **call.arguments)
            assert reply == (f"api_error: {call.reply}" if call.failed else call.reply)


def test_what_holds_no_conversation_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match="no conversation in it"):
        catalogue.recorded("tooltalk", [tmp_path / "x.json"])
    with pytest.raises(UserError, match="the same name"):
        catalogue.recorded("tooltalk", [tmp_path / "x.json"] * 2)
