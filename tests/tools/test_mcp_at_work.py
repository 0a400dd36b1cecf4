"""The agent with MCP servers: the same task through each transport, approval, faults, cancelling, setting up."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from alpha_umi.agent import Episode, EpisodeOutcome, Limits, StopReason, run_episodes, run_one
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.errors import UserError
from alpha_umi.tools import Approval, open_tools
from alpha_umi.tools.read_more import keeping
from alpha_umi.tools.sources import OpenTools
from alpha_umi.tools.text import Budget
from alpha_umi.trajectory import ToolMessage, UserMessage
from alpha_umi.transcript import Renderer, Voice
from tests.tokenizers import nano
from tests.tools.mcp_server import SERVER, listening

CALL = "I need a tool.\nNext: Caller"
DONE = "I have it.\nNext: Summarizer"
RAW = f"mcp:{sys.executable} {Path(__file__).with_name('mcp_raw.py')}"


def wanted(name: str, **arguments: Any) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def engine(*calls: str) -> ScriptedEngine:
    script: Mapping[Voice, Sequence[str]] = {
        "planner": [*[CALL] * len(calls), DONE], "caller": list(calls), "summarizer": ["Done."],
    }  # fmt: skip
    return ScriptedEngine(script, Renderer(nano()), 1 << 16)


def observations(outcome: EpisodeOutcome) -> list[str]:
    return [message.content for message in outcome.trajectory.messages if isinstance(message, ToolMessage)]


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def run(tools: OpenTools, *calls: str, **options: Any) -> EpisodeOutcome:
    return run_one(engine(*calls), Episode(0, tools.source, [UserMessage("Do it.")]), runner=tools.runner, **options)


@pytest.fixture(scope="module", params=["stdio", "http"])
def tools(request: pytest.FixtureRequest) -> Iterator[OpenTools]:
    """The SDK's server, started as a process, and listening on a port."""
    before = children()
    if request.param == "stdio":
        with open_tools([f"mcp:{sys.executable} {SERVER}"], "") as opened:
            yield opened
    else:
        with listening() as url, open_tools([f"mcp+{url}"], "") as opened:
            yield opened
    assert children() <= before


def test_a_task_is_solved_over_either_transport(tools: OpenTools) -> None:
    both = wanted("add", a=1, b=2) + "\n" + wanted("add", a=3, b=4)
    outcome = run(tools, both, wanted("picture"), wanted("add", a=3, b=7))
    assert (outcome.stop_reason, outcome.answer) == (StopReason.ANSWERED, "Done.")
    assert observations(outcome) == [
        '{"result": 3}', '{"result": 7}', "a dot\n[image/png, 8 bytes, not shown]", '{"result": 10}',
    ]  # fmt: skip


def test_a_call_that_hangs_is_stopped_and_the_run_goes_on(tools: OpenTools) -> None:
    outcome = run(tools, wanted("hang"), limits=Limits(tool_timeout=0.5))
    assert outcome.stop_reason is StopReason.ANSWERED
    assert [call.error for call in outcome.calls] == ["timeout"]
    assert observations(run(tools, wanted("add", a=1, b=2))) == ['{"result": 3}']


def test_a_tool_that_fails_or_is_called_wrongly_is_read_by_the_planner(tools: OpenTools) -> None:
    outcome = run(tools, wanted("fail"), wanted("add", a=1), wanted("ad"))
    assert [call.error for call in outcome.calls] == ["tool_error", "invalid_arguments", "unknown_tool"]
    assert "it is Tuesday" in observations(outcome)[0]


def test_what_may_change_something_is_confirmed_and_happens_in_order(tools: OpenTools) -> None:
    three = "\n".join(wanted("keep", text=text) for text in "abc")
    assert [call.error for call in run(tools, three).calls] == ["not_approved"] * 3
    asked: list[str] = []

    def ask(name: str, arguments: Mapping[str, Any]) -> bool:
        asked.append(name)
        return arguments.get("text") != "b"

    outcome = run(tools, three, wanted("erase_all_now"), approval=Approval(ask=ask))
    assert asked == ["keep", "keep", "keep", "erase_all_now"]
    assert [json.loads(observations(outcome)[number])["result"] for number in (0, 2, 3)] == [
        ["a"],
        ["a", "c"],
        "erased",
    ]


# ---- servers that misbehave -----------------------------------------------------------------------------------------


def test_another_role_in_a_reply_stays_text() -> None:
    with open_tools([RAW], "") as opened:
        outcome = run(opened, wanted("role"), wanted("echo", text="x"))
    renderer = Renderer(nano())
    assert outcome.stop_reason is StopReason.ANSWERED
    assert outcome.transcript.ids == renderer.render(outcome.trajectory).ids
    assert outcome.transcript.ids.count(renderer.header("planner")[0]) == 3


def test_cancelling_while_tools_run_ends_every_episode_and_leaves_no_process() -> None:
    before = children()
    with open_tools([RAW], "") as opened:
        (server,) = (psutil.Process(pid) for pid in children() - before)
        episodes = [Episode(number, opened.source, [UserMessage("Do it.")]) for number in range(3)]
        asked = iter(range(100))
        outcomes = run_episodes(
            engine(wanted("hang")), episodes, runner=opened.runner, cancelled=lambda: next(asked) > 20
        )
        assert {outcome.stop_reason for outcome in outcomes} == {StopReason.CANCELLED}
    assert not server.is_running()
    assert children() <= before


def test_what_was_cut_is_read_on() -> None:
    with open_tools([RAW], "") as opened, keeping(opened.source, Budget(1000)) as source:
        cut = run(OpenTools(opened.source, opened.runner), wanted("large"), limits=Limits(tool_bytes=100))
        assert len(observations(cut)[0]) < 200
        first = run_one(engine(wanted("large")), Episode(0, source, [UserMessage("?")]), runner=opened.runner)
        key = observations(first)[0].split('id="')[1].split('"')[0]
        more = wanted("read_more", id=key, start=999_990)
        outcome = run_one(engine(more), Episode(0, source, [UserMessage("?")]), runner=opened.runner)
    assert observations(outcome) == ["xxxxxxxxxx\n[... characters 999990 to 1000000 of 1000000; the end ...]"]


def test_several_servers_and_other_tools_are_used_together(tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text("def echo(text: str) -> str:\n    return text * 2\n")
    with open_tools([RAW, str(tmp_path / "more.py"), RAW], "") as opened:
        outcome = run(opened, *(wanted(name, text="x") for name in ("echo", "echo_2", "echo_3")))
    assert observations(outcome) == ["x", "xx", "x"]


def test_a_server_that_does_not_start_is_told_and_the_others_are_closed() -> None:
    before = children()
    with pytest.raises(UserError, match="check its command"), open_tools([RAW, "mcp:/nowhere/server"], ""):
        pass
    assert children() <= before
