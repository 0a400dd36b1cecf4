"""Recorded exchanges, merged into conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from alpha_umi.cli import app as command_line
from alpha_umi.errors import DataError
from alpha_umi.proxy.from_records import FromRecords, convert_records
from alpha_umi.trajectory import AssistantMessage, Trajectory, read_jsonl
from tests.serving.conftest import DAY, WEATHER

USER = {"role": "user", "content": "Weather in Paris and Rome?"}


def calling(*cities: str, spelled: str = '{"city":"%s"}', **more: Any) -> dict[str, Any]:
    made = [
        {"id": f"call_{city}", "type": "function", "function": {"name": "get_weather", "arguments": spelled % city}}
        for city in cities
    ]
    return {"role": "assistant", "content": None, "tool_calls": made, **more}


def seen(city: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{city}", "content": f"{city}: sun"}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


class Folder:
    """Records, written as the proxy does."""

    def __init__(self, path: Path) -> None:
        self.path = path / "records"
        self.path.mkdir()
        self.out = path / "out.jsonl"
        self.count = 0

    def add(
        self, messages: list[Any], *replies: Any, finish: str = "stop", tools: Any = (WEATHER,), **record: Any
    ) -> None:  # fmt: skip
        choices = [{"index": n, "message": reply, "finish_reason": finish} for n, reply in enumerate(replies)]
        self.count += 1
        whole = {
            "version": 1, "id": f"r{self.count}", "time": float(self.count), "seconds": 1.0, "status": 200,
            "path": "/v1/chat/completions", "problem": None,
            "request": {"model": "asked", "messages": messages, "tools": list(tools)},
            "response": {"model": "m", "choices": choices, "usage": {"total_tokens": 10}},
        }  # fmt: skip
        with open(self.path / f"records-{self.count % 2}.jsonl", "a") as file:
            file.write(json.dumps(whole | record) + "\n")

    def convert(self) -> FromRecords:
        return convert_records(self.path, self.out)

    def trajectories(self) -> list[Trajectory]:
        self.convert()
        return list(read_jsonl(self.out))

    def rejected(self) -> list[str]:
        self.convert()
        path = Path(f"{self.out}.rejected.jsonl")
        return sorted(json.loads(line)["reason"] for line in path.read_text().splitlines()) if path.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def turns(trajectory: Trajectory) -> list[AssistantMessage]:
    return [message for message in trajectory.messages if isinstance(message, AssistantMessage)]


def test_parallel_calls_and_all_that_clients_lose_are_put_back(folder: Folder):
    def system(hour: int) -> dict[str, str]:
        return {"role": "system", "content": f"It is {hour} o'clock."}

    called = calling("Paris", "Rome", reasoning_content="Both.", annotations=[], refusal=None) | {
        "content": "Let me see."
    }
    back = calling("Paris", "Rome", spelled='{ "city": "%s" }')
    answer = said("Sun.", reasoning="All seen.")
    folder.add([system(1), USER], called, finish="tool_calls")
    folder.add([system(2), USER, back, seen("Rome"), seen("Paris")], answer)
    history = [
        system(3),
        USER,
        back,
        seen("Rome"),
        seen("Paris"),
        said(" Sun. "),
        {"role": "user", "content": "Thanks"},
    ]
    folder.add(history, said("Welcome."), tools=[DAY])
    (trajectory,) = folder.trajectories()
    first, second, third = turns(trajectory)
    assert first.reasoning_content == "Both.\n\nLet me see."
    assert [call.arguments for call in first.tool_calls] == ['{"city":"Paris"}', '{"city":"Rome"}']
    assert [m.content for m in trajectory.messages if m.role == "tool"] == ["Paris: sun", "Rome: sun"]
    assert (second.reasoning_content, third.content) == ("All seen.", "Welcome.")
    assert trajectory.messages[0].content == "It is 3 o'clock."
    assert [tool.name for tool in trajectory.tools] == ["get_weather", "pick_day"]
    assert trajectory.extra["alpha_umi"] == {"models": ["m"], "requests": 3, "usage": {"total_tokens": 30}}


def test_every_choice_and_every_branch_is_a_conversation(folder: Folder):
    folder.add([USER], calling("Paris"), calling("Rome"))
    folder.add([USER, calling("Rome"), seen("Rome")], said("Rain."))
    folder.add([USER, calling("Rome"), seen("Rome")], said("Sun."))  # asked again
    found = folder.trajectories()
    assert [turn.content for one in found for turn in turns(one)[1:]] == ["Rain.", "Sun."]
    assert [(one.id, len(turns(one))) for one in found] == [("r1", 1), ("r2", 2), ("r3", 2)]


def test_conversations_with_one_opening_are_told_apart_by_their_instructions(folder: Folder):
    def system(name: str) -> dict[str, str]:
        return {"role": "system", "content": name}

    thanks = [said("Ok."), {"role": "user", "content": "Go on"}]
    folder.add([system("A"), USER], said("Ok.", reasoning_content="I am A."))
    folder.add([system("B"), USER], said("Ok.", reasoning_content="I am B."))
    folder.add([system("A"), USER, *thanks], said("A goes on."))
    folder.add([system("B"), USER, *thanks], said("B goes on."))
    assert [[turn.reasoning_content for turn in turns(one)] for one in folder.trajectories()] == [
        ["I am A.", None], ["I am B.", None],
    ]  # fmt: skip


def test_refusals_stay_refusals_when_clients_send_them_back_as_content(folder: Folder):
    folder.add([USER], {"role": "assistant", "content": "", "refusal": "I can't."})
    folder.add([USER, said("I can't."), {"role": "user", "content": "Why?"}], {"role": "assistant", "refusal": "No."})
    (trajectory,) = folder.trajectories()
    assert [(turn.content, turn.refusal) for turn in turns(trajectory)] == [(None, "I can't."), (None, "No.")]


def test_what_can_not_be_converted_is_rejected_with_the_reason(folder: Folder):
    folder.add([USER], said("Half an ans"), finish="length")
    folder.add([USER], said(""))
    folder.add([USER], status=429, problem="the upstream answered 429", response={"error": {"message": "slow down"}})
    folder.add([USER], status=None, problem="there was no response", response=None)
    folder.add([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], said("A cat."))
    folder.add([USER], response={"choices": "none"})
    folder.add(["no message"], said("Hm."))
    folder.add([USER], {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f"}}]})
    folder.add([USER], said("Good."), tools=[{"type": "web_search"}])
    with open(folder.path / "records-0.jsonl", "a") as file:
        file.write('{"version": 2}\n{"version": 1, "id": "cut')
    good = [USER, calling("Paris"), seen("Paris")]
    folder.add(good, said("Fine."))
    with open(folder.path / "records-0.jsonl", "rb") as file:
        broken = file.read().splitlines()[-1]
    assert b'"cut{' in broken  # what followed a line that was cut is lost with it
    folder.add(good, said("Fine."))
    (trajectory,) = folder.trajectories()
    assert turns(trajectory)[-1].content == "Fine."
    assert folder.rejected() == sorted([
        "the reply was cut (finish_reason: length)", "the reply is empty", "the upstream answered 429",
        "there was no response", "content: neither a text nor a list of text parts", "the response has no choices",
        "messages[]: Input should be an object", "messages[].tool_calls[].type: Input should be 'function'",
        "a tool is no function object with a name and an object of parameters",
        "not a record of the proxy: version: Input should be 1", "not JSON",
    ])  # fmt: skip


def test_an_error_in_the_middle_leaves_what_came_before(folder: Folder):
    folder.add([USER], calling("Paris"))
    folder.add([USER, calling("Paris"), seen("Paris")], status=500, problem="the upstream answered 500", response="x")
    (trajectory,) = folder.trajectories()
    assert [turn.tool_calls[0].id for turn in turns(trajectory)] == ["call_Paris"]
    assert folder.rejected() == ["the upstream answered 500"]


def test_the_command(folder: Folder):
    folder.add([USER], calling("Paris"))
    folder.add([USER, calling("Paris"), seen("Paris")], said("Sun."))
    command = ["data", "from-records", str(folder.path), "--out", str(folder.out), "--rationale", "rule", "--list"]
    line, summary = map(json.loads, CliRunner().invoke(command_line, [*command, "--json"]).stdout.splitlines())
    assert line == {
        "id": "r2", "models": ["m"], "requests": 2, "turns": 2, "calls": 1, "usage": {"total_tokens": 20},
    }  # fmt: skip
    assert summary == {"records": 2, "trajectories": 1, "rejected": {}}
    (trajectory,) = read_jsonl(folder.out)
    assert all(turn.reasoning_content for turn in turns(trajectory))
    text = CliRunner().invoke(command_line, command).stdout
    assert "r2 m: 2 turns, 1 calls, 20 tokens" in text
    assert "1 trajectories of 2 recorded exchanges" in " ".join(text.split())


def test_a_folder_without_records_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="no file"):
        convert_records(tmp_path, tmp_path / "out.jsonl")
