"""A conversation with tools, by the clients that applications use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

from alpha_umi.engines import Ending, Generation, Request, Sampling
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.transcript import Renderer, Voice
from tests.serving.conftest import ASK, WEATHER, ScriptedOf, Served, serving, weather_script


@pytest.fixture(scope="module")
def served(scripted: ScriptedOf) -> Iterator[Served]:
    with serving(scripted(weather_script)) as served:
        yield served


def create(client: OpenAI, messages: Any, **options: Any) -> Any:
    return client.chat.completions.create(model="umi", messages=messages, **{"tools": [WEATHER], **options})


def dropped(message: Any) -> dict[str, Any]:
    """What many clients send back: no rationale, no empty fields."""
    return message.model_dump(exclude={"reasoning_content"}, exclude_none=True)


def test_two_questions_with_a_call_each(served: Served):
    client, messages = served.client(), cast("list[Any]", list(ASK))
    for city, weather in (("Paris", "rain"), ("Rome", "sun")):
        called = create(client, messages)
        (choice,) = called.choices
        assert choice.finish_reason == "tool_calls"
        assert called.alpha_umi == {"stop_reason": "client_calls", "prefill_tokens": called.alpha_umi["prefill_tokens"]}
        assert choice.message.reasoning_content == f"I need {city}."
        assert choice.message.content is None
        (call,) = choice.message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": city})
        messages += [dropped(choice.message), {"role": "tool", "tool_call_id": call.id, "content": weather}]
        answered = create(client, messages)
        (choice,) = answered.choices
        assert (choice.finish_reason, choice.message.content) == ("stop", f"In {city}: {weather}.")
        assert answered.alpha_umi["stop_reason"] == "answered"
        assert answered.usage.prompt_tokens > called.usage.prompt_tokens
        assert answered.usage.total_tokens == answered.usage.prompt_tokens + answered.usage.completion_tokens
        messages += [dropped(choice.message), {"role": "user", "content": "What is the weather in Rome?"}]


def test_a_stream_says_the_same(served: Served):
    client, messages = served.client(), cast("list[Any]", list(ASK))
    for _ in range(2):
        whole = create(client, messages).choices[0]
        parts: dict[str, str] = {"reasoning_content": "", "content": "", "arguments": ""}
        kinds: list[str] = []
        finish, usage = None, None
        for chunk in create(client, messages, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                for kind in ("reasoning_content", "content"):
                    text = getattr(choice.delta, kind, None)
                    parts[kind] += text or ""
                    kinds += [kind] if text else []
                for call in choice.delta.tool_calls or ():
                    parts["arguments"] += call.function.arguments or ""
                    kinds.append("arguments")
        assert parts["reasoning_content"] == whole.message.reasoning_content
        assert parts["content"] == (whole.message.content or "")
        assert finish == whole.finish_reason
        assert usage is not None and usage.completion_tokens > 0
        calls = whole.message.tool_calls or []
        assert parts["arguments"] == "".join(call.function.arguments for call in calls)
        assert list(dict.fromkeys(kinds)) == (
            ["reasoning_content", "arguments"] if calls else ["reasoning_content", "content"]
        )
        messages += [dropped(whole.message)]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in calls]


def test_the_asynchronous_client_and_its_stream_helper(served: Served):
    async def converse() -> tuple[str | None, str | None]:
        async with AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:
            messages = cast("list[Any]", list(ASK))
            tools = cast("list[Any]", [WEATHER])
            first = await client.chat.completions.create(model="umi", messages=messages, tools=tools)
            called = first.choices[0].message
            assert called.tool_calls is not None
            messages += [dropped(called), {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "fog"}]
            async with client.chat.completions.stream(model="umi", messages=messages, tools=tools) as stream:
                said = [event.delta async for event in stream if event.type == "content.delta"]
                final = await stream.get_final_completion()
            return "".join(said), final.choices[0].message.content

    assert asyncio.run(converse()) == ("In Paris: fog.", "In Paris: fog.")


def test_many_conversations_at_once(scripted: ScriptedOf):
    async def ask(client: AsyncOpenAI, city: str) -> str | None:
        content = f"What is the weather in {city}?"
        made = await client.chat.completions.create(
            model="umi", messages=[{"role": "user", "content": content}], tools=cast("list[Any]", [WEATHER])
        )
        calls = made.choices[0].message.tool_calls
        return json.loads(cast("Any", calls)[0].function.arguments)["city"]

    async def ask_all(url: str) -> list[str | None]:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return list(await asyncio.gather(*(ask(client, f"Town{n}") for n in range(60))))

    with serving(scripted(weather_script)) as served:
        assert asyncio.run(ask_all(served.url)) == [f"Town{n}" for n in range(60)]
        assert served.metric("answers_total") == 60
        assert served.metric("running") == served.metric("waiting") == 0


def test_a_history_that_was_made_elsewhere(served: Served):
    call = {"id": "x1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is the weather in Oslo?"}]},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "x1", "content": "snow"},
    ]
    assert create(served.client(), messages).choices[0].message.content == "In Oslo: snow."


def test_giving_up_is_a_refusal(scripted: ScriptedOf):
    with serving(scripted({"planner": ["No tool can do that.\nNext: Give up"]})) as served:
        made = create(served.client(), ASK)
        streamed = create(served.client(), ASK, stream=True)
        refusals = [choice.delta.refusal for chunk in streamed for choice in chunk.choices]
    message = made.choices[0].message
    assert (message.refusal, message.content, message.tool_calls) == ("No tool can do that.", None, None)
    assert (made.choices[0].finish_reason, made.alpha_umi["stop_reason"]) == ("stop", "gave_up")
    assert "".join(filter(None, refusals)) == "No tool can do that."


class Repeating(ScriptedEngine):
    """Holds spans to grammars, it says; its summarizer begins to repeat itself."""

    constrained = True

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        made = super().generate(requests, sampling)
        return [
            replace(one, ended=Ending.REPETITION) if request.voice == "summarizer" else one
            for request, one in zip(requests, made, strict=True)
        ]


@pytest.mark.parametrize(("said", "finish"), [('{"good": "no no no no', "length"), ('{"good": true}', "stop")])
def test_an_answer_that_was_to_have_a_form_is_complete_or_says_that_it_is_not(
    said: str, finish: str, renderer: Renderer
):
    script: dict[Voice, list[str]] = {"planner": ["I know.\nNext: Summarizer"], "summarizer": [said]}
    with serving(Repeating(script, renderer)) as served:
        made = create(served.client(), ASK, response_format={"type": "json_object"})
    assert (made.choices[0].finish_reason, made.alpha_umi["cut"]) == (finish, "repetition")


def test_a_call_that_can_not_be_made_never_reaches_the_client(scripted: ScriptedOf):
    script = {
        "planner": ["First.\nNext: Caller", "Again.\nNext: Caller"],
        "caller": ['{"name": "get_wether", "arguments": {}}', '{"name": "get_weather", "arguments": {"city": "Bonn"}}'],
    }
    with serving(scripted(script)) as served:
        messages = cast("list[Any]", list(ASK))
        message = create(served.client(), messages).choices[0].message
        assert message.reasoning_content == "First.\n\nAgain."
        assert [call.function.name for call in message.tool_calls] == ["get_weather"]
        messages += [dropped(message), {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "dry"}]
        create(served.client(), messages)


def test_the_model_is_listed_and_the_server_is_healthy(served: Served):
    assert [model.id for model in served.client().models.list()] == ["umi"]
    assert served.client().models.retrieve("umi").owned_by == "alpha-umi"
    assert httpx2.get(f"{served.root}/health").json() == {"status": "ok"}
    metrics = httpx2.get(f"{served.root}/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'umi_request_seconds_bucket{le="+Inf"}' in metrics.text or served.metric("running") == 0


def test_the_description_of_the_interface_names_the_model_and_both_kinds_of_response(served: Served):
    asked = httpx2.get(f"{served.root}/openapi.json").json()["paths"]["/v1/chat/completions"]["post"]
    schema = asked["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["model"]["enum"] == ["umi"]
    assert "$ref" not in json.dumps(schema)
    assert asked["responses"]["200"]["content"].keys() == {"application/json", "text/event-stream"}
