"""What a server does with a real model: caches, streams as tokens come, batches, cancels, holds to grammars."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import httpx2
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from alpha_umi.agent.limits import MAX_NEW_TOKENS
from alpha_umi.engines import Request, Sampling
from alpha_umi.engines.local import LocalEngine
from alpha_umi.transcript import ROLES, Renderer
from tests.engines.test_local_engine import make
from tests.serving.conftest import ASK, DAY, Served, serving

LocalOf = Callable[..., LocalEngine]
BLOCK = 64
CALL: dict[str, Any] = {
    "model": "umi", "tools": [DAY], "tool_choice": "required", "parallel_tool_calls": False, "messages": ASK,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def short_spans() -> Iterator[None]:
    """A random model never stops by itself."""
    with pytest.MonkeyPatch.context() as patch:
        for voice, tokens in (("planner", 16), ("caller", 80), ("summarizer", 48)):
            patch.setitem(cast("Any", MAX_NEW_TOKENS), voice, tokens)
        yield


@pytest.fixture(scope="module")
def served(local: LocalOf) -> Iterator[Served]:
    with serving(local()) as served:
        yield served


def made(served: Served, **request: Any) -> dict[str, Any]:
    response = served.post({"model": "umi", "messages": ASK, **request})
    assert response.status_code == 200, response.text
    return response.json()


def events(served: Served, **request: Any) -> list[dict[str, Any]]:
    response = served.post({"model": "umi", "messages": ASK, "stream": True, **request})
    assert response.status_code == 200, response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_turn_computes_only_what_is_new(served: Served):
    messages, length = list(ASK), 0
    for turn in range(3):
        answer = made(served, **{**CALL, "messages": messages})
        usage, (choice,) = answer["usage"], answer["choices"]
        computed = answer["alpha_umi"]["prefill_tokens"]
        if turn:
            assert computed <= usage["prompt_tokens"] - length + BLOCK
            assert usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] < BLOCK
        length = usage["prompt_tokens"] + usage["completion_tokens"]
        message = {key: value for key, value in choice["message"].items() if key != "reasoning_content"}
        messages.append(message)
        messages.append({"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": f"day {turn}"})


def test_a_turn_that_is_asked_for_twice_at_once_is_the_same_twice(served: Served):
    first = made(served, **CALL)["choices"][0]["message"]
    messages = [*ASK, first, {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "ok"}]

    async def both() -> list[Any]:
        async with AsyncOpenAI(base_url=served.url, api_key="none") as client:
            asked = {**CALL, "messages": messages}
            return await asyncio.gather(*(client.chat.completions.create(**cast("Any", asked)) for _ in range(3)))

    texts = {answer.choices[0].message.reasoning_content for answer in asyncio.run(both())}
    assert texts == {made(served, **{**CALL, "messages": messages})["choices"][0]["message"]["reasoning_content"]}


@pytest.mark.parametrize(
    "request_",
    [CALL, {**CALL, "temperature": 1.0, "seed": 5}, {"max_tokens": 12, "temperature": 1.0, "seed": 6, "n": 3}],
    ids=["call", "sampled", "several"],
)
def test_a_stream_says_what_a_whole_response_says(served: Served, request_: dict[str, Any]):
    whole = {choice["index"]: choice for choice in made(served, **request_)["choices"]}
    told: dict[int, dict[str, str]] = {index: {} for index in whole}
    for event in events(served, **request_):
        for choice in event["choices"]:
            parts = told[choice["index"]]
            for key, text in choice["delta"].items():
                if key == "tool_calls":
                    text = text[0]["function"]["arguments"]
                if text is not None:
                    parts[key] = parts.get(key, "") + text
            if choice["finish_reason"] is not None:
                assert choice["finish_reason"] == whole[choice["index"]]["finish_reason"]
    for index, choice in whole.items():
        message = choice["message"]
        calls = message.pop("tool_calls", [])
        wanted = {key: text for key, text in message.items() if text}
        wanted |= {"tool_calls": calls[0]["function"]["arguments"]} if calls else {}
        assert {key: text for key, text in told[index].items() if text} == wanted


def test_the_same_seed_draws_the_same_and_another_does_not(served: Served):
    def text(seed: int | None) -> str:
        answer = made(served, temperature=1.0, max_tokens=10, **({} if seed is None else {"seed": seed}))
        return answer["choices"][0]["message"]["reasoning_content"]

    assert text(1) == text(1) != text(2)
    assert text(None) != text(None)


def test_a_named_tool_is_called_and_none_is_not(served: Served):
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object", "properties": {}}}}
    named = {"type": "function", "function": {"name": "other"}}
    call = made(served, **{**CALL, "tools": [DAY, other], "tool_choice": named})["choices"][0]["message"]["tool_calls"]
    assert [one["function"] for one in call] == [{"name": "other", "arguments": "{}"}]
    none = made(served, **{**CALL, "tool_choice": "none", "parallel_tool_calls": True, "max_tokens": 12})
    assert "tool_calls" not in none["choices"][0]["message"]


def test_the_longest_answer_that_is_wanted(served: Served):
    answer = made(served, max_completion_tokens=7)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 7


def test_a_conversation_that_outgrows_the_context_is_an_error(local: LocalOf):
    with serving(local(context=256)) as served:
        for stream in (False, True):
            response = served.post(
                {"model": "umi", "messages": [{"role": "user", "content": "ab " * 400}], "stream": stream}
            )
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "context_length_exceeded"
        assert served.metric("running") == 0


def test_nothing_more_is_generated_for_a_client_that_left(local: LocalOf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cast("Any", MAX_NEW_TOKENS), "planner", 7000)
    engine, forgotten = local(), threading.Event()
    forget = engine.forget
    monkeypatch.setattr(engine, "forget", lambda sessions: (forget(sessions), forgotten.set()))
    with serving(engine) as served:
        body = {"model": "umi", "messages": ASK, "stream": True, "temperature": 1.0}
        with httpx2.stream("POST", f"{served.url}/chat/completions", json=body, timeout=60) as response:
            next(line for line in response.iter_lines() if "reasoning_content" in line)
        assert forgotten.wait(60)
        assert not engine._begun
        assert served.metric('answers_total{reason="cancelled"}') == 1
        assert served.metric("running") == 0


def test_a_request_need_not_wait_for_those_before_it(local: LocalOf, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cast("Any", MAX_NEW_TOKENS), "planner", 7000)
    with serving(local()) as served:
        body = {"model": "umi", "messages": ASK, "stream": True, "temperature": 1.0}
        with httpx2.stream("POST", f"{served.url}/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(line for line in lines if "reasoning_content" in line)
            assert made(served, max_completion_tokens=2)["usage"]["completion_tokens"] == 2
            assert served.metric("running") == 1
            assert "reasoning_content" in next(line for line in lines if line)


class Verdict(BaseModel):
    good: bool
    day: Literal["mon", "tue"]


class WantsAnAnswer(LocalEngine):
    """Its planner has always decided to answer."""

    def begin(self, requests: Sequence[Request], sampling: Sampling) -> list[int]:
        decided = 'start: "Next: Summarizer"'
        return super().begin(
            [replace(one, grammar=decided) if one.voice == "planner" else one for one in requests], sampling
        )


def test_an_answer_of_a_given_form(renderer: Renderer):
    model = make("llama", renderer)
    with serving(WantsAnAnswer(dict.fromkeys(ROLES, model), renderer)) as served:
        parsed = served.client().chat.completions.parse(model="umi", messages=cast("Any", ASK), response_format=Verdict)
        assert isinstance(parsed.choices[0].message.parsed, Verdict)
        free = made(served, response_format={"type": "json_object"}, max_completion_tokens=40)
        assert free["choices"][0]["message"]["content"].startswith("{")


def test_a_stop_sequence_ends_the_answer_and_is_no_part_of_it(renderer: Renderer):
    model = make("llama", renderer)
    with serving(WantsAnAnswer(dict.fromkeys(ROLES, model), renderer)) as served:
        whole = made(served)["choices"][0]["message"]["content"]
        stop = whole[10:12]
        answer = made(served, stop=[stop, "\x00 never"])
        told = "".join(
            choice["delta"].get("content") or "" for event in events(served, stop=stop) for choice in event["choices"]
        )
    assert answer["choices"][0]["message"]["content"] == told == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] < 40
