"""A client and a real server of ours, with the proxy between them: what is recorded becomes training data."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from typer.testing import CliRunner

from alpha_umi.cli import app as command_line
from alpha_umi.errors import UserError
from alpha_umi.proxy.exchange import in_sample
from alpha_umi.proxy.from_records import convert_records
from alpha_umi.trajectory import read_jsonl
from tests.proxy.conftest import proxied, records
from tests.serving.conftest import ASK, WEATHER, ScriptedOf, serving, weather_script

CANARY = "canary-7f3a9c5e1b2d"


def conversation(client: OpenAI, stream: bool, **options: Any) -> list[dict[str, Any]]:
    """Asks, makes the call, asks on; the history without rationales, as most clients keep it."""
    messages: list[dict[str, Any]] = list(ASK)
    given: Any = {"model": "umi", "messages": messages, "tools": [WEATHER], **options}
    for _ in range(2):
        if stream:
            with client.chat.completions.stream(**given) as events:
                message = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**given).choices[0].message
        messages.append(message.model_dump(exclude={"reasoning_content", "parsed"}))
        for call in message.tool_calls or ():
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "Sunny"})
    return messages


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_becomes_one_trajectory_with_the_rationales_that_the_client_lost(
    scripted: ScriptedOf, tmp_path: Path, stream: bool
):
    with serving(scripted(weather_script)) as served, proxied(served.url, tmp_path / "records") as proxy:
        messages = conversation(proxy.client(), stream)
    assert messages[-1]["content"] == "In Paris: Sunny."
    out = tmp_path / "out.jsonl"
    told: list[Any] = []
    done = convert_records(tmp_path / "records", out, on_conversation=told.append)
    assert (done.records, done.trajectories, done.rejected) == (2, 1, {})
    (trajectory,) = read_jsonl(out)
    called, answered = (m for m in trajectory.messages if m.role == "assistant")
    assert (called.reasoning_content, answered.reasoning_content) == ("I need Paris.", "Sunny is known.")
    assert called.tool_calls[0].arguments == '{"city": "Paris"}'
    assert [tool.name for tool in trajectory.tools] == ["get_weather"]
    (line,) = told
    assert (line.models, line.requests, line.turns, line.calls) == (("umi",), 2, 2, 1)
    if not stream:
        assert line.usage["total_tokens"] == line.usage["prompt_tokens"] + line.usage["completion_tokens"] > 0
    assert trajectory.extra["alpha_umi"]["models"] == ["umi"]
    checked = CliRunner().invoke(command_line, ["data", "check", str(out)])
    assert checked.output.strip() == "nothing found"


def test_many_conversations_at_one_time_are_kept_apart(scripted: ScriptedOf, tmp_path: Path):
    cities = [f"City{number}" for number in range(12)]

    async def one(client: Any, city: str) -> str:
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"What is the weather in {city}?"}]
        made = await client.chat.completions.create(model="umi", messages=messages, tools=[WEATHER])
        message = made.choices[0].message
        messages += [message.model_dump(exclude_unset=True)]
        messages += [{"role": "tool", "tool_call_id": c.id, "content": "Fog"} for c in message.tool_calls]
        stream = await client.chat.completions.create(model="umi", messages=messages, tools=[WEATHER], stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    async def all_of_them(client: Any) -> list[str]:
        async with client:
            return await asyncio.gather(*(one(client, city) for city in cities))

    with serving(scripted(weather_script)) as served, proxied(served.url, tmp_path / "r") as proxy:
        said = asyncio.run(all_of_them(proxy.asynchronous()))
    assert said == [f"In {city}: Fog." for city in cities]
    assert convert_records(tmp_path / "r", tmp_path / "out.jsonl").trajectories == 12
    found = {t.instruction: t.messages[-1] for t in read_jsonl(tmp_path / "out.jsonl")}
    for city in cities:
        last = found[f"What is the weather in {city}?"]
        assert last.role == "assistant" and last.content == f"In {city}: Fog."


def test_a_conversation_without_tools_and_one_that_opts_out_are_passed_on_and_not_recorded(
    scripted: ScriptedOf, tmp_path: Path
):
    with serving(scripted(weather_script)) as served, proxied(served.url, tmp_path / "r") as proxy:
        client = proxy.client()
        conversation(client.with_options(default_headers={"X-Umi-Record": "no"}), stream=False)
        with pytest.raises(Exception, match="observation"):
            client.chat.completions.create(model="umi", messages=[{"role": "tool", "content": "?"}])  # type: ignore
        script_only = client.chat.completions.create(model="umi", messages=[{"role": "user", "content": "Hi"}])
        assert script_only.choices
    assert [record["status"] for record in records(tmp_path / "r")] == [400]
    assert proxy.tally.left_out == {"opted out": 2, "no tools in it": 1}


def test_secrets_are_in_no_file(scripted: ScriptedOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("APP_SECRET_WORD", CANARY)
    key = "sk-client-0123456789abcdef"

    def script(session: int, voice: Any, text: str) -> str:
        if voice == "caller":
            return f'{{"name": "get_weather", "arguments": {{"city": "{CANARY}"}}}}'
        return f"I use {key}.\nNext: Caller" if voice == "planner" else "Never."

    with serving(scripted(script)) as served, proxied(served.url, tmp_path / "r") as proxy:
        client = proxy.client(key, default_headers={"X-Api-Key": "header-canary-123456", "Cookie": "a=cookie-canary-1"})
        said = f"My words: {CANARY}, {key}, header-canary-123456, cookie-canary-1."
        for stream in (False, True):
            made = client.chat.completions.create(
                model="umi", messages=[{"role": "user", "content": said}], tools=[WEATHER], stream=stream,  # type: ignore
                extra_query={"key": key},
            )  # fmt: skip
            text = made.to_json() if not stream else "".join(chunk.to_json() for chunk in made)  # type: ignore
            assert "canary" in text  # it did pass
    text = "".join(file.read_text() for file in (tmp_path / "r").iterdir())
    assert len(records(tmp_path / "r")) == 2
    for secret in (CANARY, key, "header-canary", "cookie-canary", "Bearer"):
        assert secret not in text
    assert "My words: [masked], [masked], [masked], [masked]." in text
    assert all((os.stat(file).st_mode & 0o077) == 0 for file in [tmp_path / "r", *(tmp_path / "r").iterdir()])


def test_the_sample_is_the_same_for_every_request_of_a_conversation():
    def request(user: str, *more: Any) -> dict[str, Any]:
        return {
            "messages": [
                {"role": "system", "content": f"{len(more)} o'clock"},
                {"role": "user", "content": user},
                *more,
            ]
        }

    answer = {"role": "assistant", "content": "a"}
    chosen = [in_sample(request(f"question {number}"), 0.3) for number in range(1000)]
    assert chosen == [in_sample(request(f"question {number}", answer, answer), 0.3) for number in range(1000)]
    assert 250 < sum(chosen) < 350
    assert all(in_sample(request(str(number)), 1.0) for number in range(50))
    assert not any(in_sample(request(str(number)), 0.0) for number in range(50))


def test_the_process_ends_open_streams_and_writes_what_it_has(scripted: ScriptedOf, tmp_path: Path):
    gate = threading.Event()

    def script(session: int, voice: Any, text: str) -> str:
        if voice == "summarizer":
            assert gate.wait(60)
        return "I know.\nNext: Summarizer" if voice == "planner" else "The whole answer."

    root = Path(__file__).resolve().parents[2]
    with serving(scripted(script)) as served:
        command = [sys.executable, "-m", "alpha_umi.cli", "proxy", "--upstream", served.url, "--record", str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(root / "src")}
        with subprocess.Popen(
            [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            try:
                url = json.loads(process.stdout.readline())["url"]
                body = {"model": "umi", "messages": ASK, "tools": [WEATHER], "stream": True}
                with httpx2.stream("POST", f"{url}/chat/completions", json=body, timeout=120) as response:
                    lines = response.iter_lines()
                    next(line for line in lines if "reasoning_content" in line)
                    process.send_signal(signal.SIGTERM)
                    gate.set()
                    rest = "\n".join(lines)
                recorded, stopped = map(json.loads, process.stdout.read().splitlines())
                assert process.wait(60) == 0
            finally:
                gate.set()
                process.kill()
    assert "The whole answer." in rest and rest.rstrip().endswith("data: [DONE]")
    assert (recorded["model"], recorded["problem"]) == ("umi", None)
    assert (stopped["recorded"], stopped["left_out"]) == (1, {})
    assert records(tmp_path)[0]["response"]["choices"][0]["message"]["content"] == "The whole answer."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--api-key-env"),
        (["--upstream-key-env", "UMI_TEST_KEY"], "--api-key-env"),
        (["--api-key-env", "UMI_NO_SUCH_KEY"], "UMI_NO_SUCH_KEY"),
        (["--upstream", "localhost:1"], "http://"),
        (["--upstream", "http://me:secret@localhost:1"], "environment variable"),
        (["--record", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UMI_TEST_KEY", "k")
    usual = ["proxy", "--upstream", "http://127.0.0.1:9/v1", "--record", str(tmp_path), "--port", "0"]
    result = CliRunner().invoke(command_line, usual + arguments)
    assert isinstance(result.exception, UserError)
    assert words in str(result.exception)
    assert "secret" not in str(result.exception)
