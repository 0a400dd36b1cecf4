"""What a server doesn't do is an error that says which parameter it is about; nothing is ignored in silence."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpha_umi.engines.local import LocalEngine
from alpha_umi.errors import UserError
from alpha_umi.serving.asked import Abilities
from alpha_umi.serving.errors import ApiError
from alpha_umi.serving.limits import ServerLimits
from alpha_umi.serving.reading import depth, read_request
from alpha_umi.serving.security import check_binding, is_loopback
from alpha_umi.transcript import Voice
from tests.serving.conftest import ASK, DAY, WEATHER, ScriptedOf, Served, serving, weather_script

CONSTRAINED = Abilities("umi", True, False, False)
PLAIN = Abilities("umi", False, False, False)
CALL = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
BOUNDS = ServerLimits()


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"x": value}}
    return value


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "t", **function}}


def error_of(change: dict[str, Any], abilities: Abilities = CONSTRAINED) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_request({"model": "umi", "messages": ASK, "tools": [WEATHER], **change}, abilities, BOUNDS)
    return caught.value


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"store": True}, "store"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"guided_json": {}}, "guided_json"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "messages"),
        ({"messages": [*ASK, {"role": "tool", "tool_call_id": "x", "content": "y"}]}, "messages"),
        ({"messages": [*ASK, {"role": "assistant", "tool_calls": [CALL]}]}, "messages"),
        ({"messages": [*ASK, {"role": "assistant", "tool_calls": [CALL]}, *ASK]}, "messages"),
        ({"messages": [*ASK, {"role": "assistant", "tool_calls": [CALL, CALL]}]}, "messages"),
        ({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}, "messages.0.audio"),
        ({"messages": ASK * 2049}, "messages"),
        ({"tools": [tool(parameters=nested(40))]}, "tools.0.function.parameters"),
        ({"tools": [tool(parameters={"type": "object", "description": "x" * 70_000})]}, "tools.0.function.parameters"),
        ({"tools": [tool(strict=True, parameters={"type": "object", "not": {}})]}, "tools.0.function.strict"),
        ({"tools": [tool(name="")]}, "tools.0.function.name"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [tool()] * 10_000}, "tools"),
        ({"tools": [tool(name=f"t{n}", description="x" * 60_000) for n in range(10)]}, "tools"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"tool_choice": "required", "tools": None}, "tool_choice"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"n": 1.5}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": 1 << 70}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}},
         "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": nested(50)}}},
         "response_format"),
    ],
)  # fmt: skip
def test_a_parameter_that_can_not_be_taken_is_named(change: dict[str, Any], param: str):
    error = error_of(change)
    assert error.status == 400
    assert (error.param or "").startswith(param)
    assert error.message
    assert error.body()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "change",
    [
        {"tool_choice": "required"},
        {"tool_choice": "none"},
        {"parallel_tool_calls": False},
        {"response_format": {"type": "json_object"}},
        {"tools": [tool(strict=True)]},
    ],
)
def test_an_engine_without_grammars_says_what_it_can_not_hold(change: dict[str, Any]):
    assert error_of(change, PLAIN).code == "unsupported_parameter"


def test_what_changes_nothing_is_taken():
    harmless = {
        "user": "u", "metadata": {"a": "b"}, "store": False, "logprobs": False, "frequency_penalty": 0, "n": 1,
        "logit_bias": {}, "modalities": ["text"], "tool_choice": "auto", "parallel_tool_calls": True, "stop": None,
        "response_format": {"type": "text"}, "service_tier": "auto", "temperature": 1, "reasoning_effort": None,
    }  # fmt: skip
    asked = read_request({"model": "umi", "messages": ASK, "tools": [WEATHER], **harmless}, PLAIN, BOUNDS)
    assert [one.name for one in asked.tools] == ["get_weather"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
_NAMES = st.sampled_from([
    "messages", "tools", "tool_choice", "response_format", "stop", "n", "seed", "stream", "temperature", "max_tokens",
    "role", "content", "tool_calls", "function", "name", "parameters", "arguments", "type", "id", "tool_call_id",
])  # fmt: skip


@given(body=st.recursive(
    _JSON | st.sampled_from(["user", "assistant", "tool", "function", "umi", "auto", "json_schema"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4), max_leaves=20,
))  # fmt: skip
def test_whatever_is_sent_is_read_or_refused(body: Any):
    bodies = [body, {"model": "umi", "messages": body}, {"model": "umi", "messages": ASK, "tools": body}]
    bodies += [{"model": "umi", "messages": ASK, **body}] if isinstance(body, dict) else []
    for one in bodies:
        try:
            read_request(one, CONSTRAINED, BOUNDS)
        except ApiError as error:
            assert 400 <= error.status < 500


@given(_JSON)
def test_depth_counts_what_holds_something(value: Any):
    assert depth([value]) == depth(value) + 1
    assert depth("x") == depth([]) == depth({}) == 0


# ---- over HTTP ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(scripted: ScriptedOf) -> Iterator[Served]:
    with serving(scripted(weather_script), limits=ServerLimits(body_bytes=100_000)) as served:
        yield served


def code_of(response: httpx2.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return response.status_code, error["code"]


def send(served: Served, content: Any, kind: str = "application/json") -> httpx2.Response:
    return httpx2.post(f"{served.url}/chat/completions", content=content, headers={"content-type": kind}, timeout=60)


def test_a_body_that_is_no_json(served: Served):
    for content in (b"", b"{", b"\xff\xfe", b'{"n": NaN}', b"[" * 50_000, b'{"seed": ' + b"9" * 5000 + b"}", b"[]"):
        assert code_of(send(served, content)) == (400, "invalid_json")
    assert code_of(send(served, b"{}", "text/plain")) == (415, "unsupported_media_type")


def test_a_body_that_is_too_large_is_refused_in_a_way_that_its_sender_can_read(served: Served):
    assert code_of(send(served, b" " * 100_001)) == (413, "request_too_large")
    assert code_of(send(served, b" " * 3_000_000)) == (413, "request_too_large")

    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    assert code_of(send(served, parts())) == (413, "request_too_large")


def test_a_body_that_is_far_too_large_is_not_read_to_its_end(served: Served):
    with socket.create_connection(("127.0.0.1", int(served.root.rpartition(":")[2]))) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 1000000000\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_half_a_surrogate_pair_can_be_said_and_is_answered(served: Served):
    body = (
        rb'{"model": "umi", "messages": [{"role": "user", "content": "weather in \ud800?"}], "tool_choice": "\udfff"}'
    )
    assert code_of(send(served, body))[0] == 400
    odd = body.replace(rb', "tool_choice": "\udfff"', b"")
    assert send(served, odd).status_code == 200
    named = odd[:-1] + rb', "tools": [{"type": "function", "function": {"name": "\ud800"}}]}'
    assert code_of(send(served, named))[0] == 400


def test_other_models_routes_and_methods(served: Served):
    assert code_of(served.post({"model": "gpt", "messages": ASK})) == (404, "model_not_found")
    assert httpx2.get(f"{served.url}/models/gpt").status_code == 404
    assert httpx2.get(f"{served.url}/nothing").json()["error"]["type"] == "invalid_request_error"
    assert httpx2.get(f"{served.url}/chat/completions").status_code == 405


def test_without_a_key_only_names_of_this_machine_are_answered(served: Served):
    response = httpx2.get(f"{served.url}/models", headers={"Host": "evil.example:8000"})
    assert code_of(response) == (403, "forbidden_host")
    assert httpx2.get(f"{served.url}/models", headers={"Host": "localhost:8000"}).status_code == 200
    assert httpx2.get(f"{served.root}/health", headers={"Host": "evil.example"}).status_code == 200


def test_a_key_is_wanted_everywhere_but_for_the_health(scripted: ScriptedOf):
    with serving(scripted(weather_script), api_key="sesame-ä") as served:
        assert httpx2.get(f"{served.root}/health").status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
            assert code_of(httpx2.get(served.root + path)) == (401, "invalid_api_key")
            wrong = httpx2.get(served.root + path, headers={"Authorization": "Bearer sesame"})
            assert (wrong.status_code, "sesame" in wrong.text) == (401, False)
        right = {"Authorization": b"Bearer " + "sesame-ä".encode(), "Host": "evil.example"}
        assert httpx2.get(f"{served.url}/models", headers=right).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.org", ""])
def test_nobody_is_served_beyond_this_machine_without_a_key(host: str):
    with pytest.raises(UserError, match="--api-key-env"):
        check_binding(host, None)
    check_binding(host, "key")


def test_names_of_this_machine():
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"]))


def test_a_queue_that_is_full_says_when_to_come_again(scripted: ScriptedOf):
    gate, entered = threading.Event(), threading.Event()

    def script(session: int, voice: Voice, text: str) -> str:
        entered.set()
        assert gate.wait(60)
        return "Done.\nNext: Give up"

    limits = ServerLimits(concurrency=1, queue=1)
    with serving(scripted(script), limits=limits) as served, ThreadPoolExecutor(2) as pool:
        body = {"model": "umi", "messages": ASK}
        first = pool.submit(served.post, body)
        assert entered.wait(60)
        assert code_of(served.post({**body, "n": 2})) == (429, "queue_full")
        second = pool.submit(served.post, body)
        while served.metric("waiting") < 1:
            pass
        refused = served.post(body)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        gate.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        assert served.metric('requests_total{status="429"}') == 2


def test_an_engine_that_fails_is_an_error_and_the_server_goes_on(scripted: ScriptedOf):
    said: list[str] = []

    def script(session: int, voice: Voice, text: str) -> str:
        said.append(voice)
        if len(said) == 1:
            raise RuntimeError("secret detail")
        return "No.\nNext: Give up"

    with serving(scripted(script)) as served:
        failed = served.post({"model": "umi", "messages": ASK})
        assert code_of(failed) == (500, "internal_error")
        assert "secret" not in failed.text
        assert served.post({"model": "umi", "messages": ASK}).status_code == 200


BOMBS = {
    "references": {
        "type": "object", "properties": {"x": {"$ref": "#/$defs/a0"}}, "required": ["x"],
        "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)} | {"a40": {}},
    },
    "itself": {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]},
    "pattern": {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}}, "required": ["x"]},
    "bad pattern": {"type": "object", "properties": {"x": {"type": "string", "pattern": "(["}}, "required": ["x"]},
    "counted": {"type": "object", "properties": {"x": {"type": "string", "pattern": "(.{1,999}){1,999}"}}},
    "many": {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1500)}},
    "no schema": {"type": 5, "properties": 7, "required": {"a": 1}},
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_schema_can_not_keep_the_server_busy(name: str, local: Callable[..., LocalEngine]):
    with serving(local(context=8192)) as served:
        bomb = {"type": "function", "function": {"name": "bomb", "parameters": BOMBS[name]}}
        body = {"model": "umi", "messages": ASK, "tools": [bomb, DAY], "max_tokens": 20}
        assert served.post(body).status_code in (200, 400)
        named = {**body, "tool_choice": {"type": "function", "function": {"name": "bomb"}}}
        assert served.post(named).status_code in (200, 400)


def test_what_is_far_too_long_is_refused_before_it_is_read(served: Served):
    body = {"model": "umi", "messages": [{"role": "user", "content": "a" * 90_000}]}
    few = Abilities("umi", False, False, False, characters=80_000)
    with pytest.raises(ApiError) as caught:
        read_request(body, few, BOUNDS)
    assert caught.value.code == "context_length_exceeded"
    called = {"role": "assistant", "tool_calls": [CALL]}
    long = {"model": "umi", "messages": [*ASK, called, {"role": "tool", "tool_call_id": "a", "content": "a" * 90_000}]}
    assert len(read_request(long, few, BOUNDS).messages) == 3
    assert served.post(long).status_code == 200
