"""Bytes, headers, codes, breaks and leavings, through the proxy as without it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

from alpha_umi.proxy.headers import end_to_end, secrets_in
from alpha_umi.proxy.limits import ProxyLimits
from tests.proxy.conftest import Proxied, proxied, records
from tests.serving.conftest import ASK, WEATHER
from tests.tools.web import Handler, Received, Web, answering, respond, serving

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": ASK, "tools": [WEATHER]}
COMPLETION = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m-1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Höflich."}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}  # fmt: skip


def events(*deltas: dict[str, Any], done: bool = True) -> list[bytes]:
    """The events of a stream, the last of which ends it."""
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    chunks = [base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}] if done else []
    texts = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
    return [*texts, b"data: [DONE]\n\n"] if done else texts


def chunked(writer: asyncio.StreamWriter, *parts: bytes, end: bool = True) -> None:
    for part in parts:
        writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    writer.write(b"0\r\n\r\n" if end else b"")


def stream_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")


async def streaming(request: Received, writer: asyncio.StreamWriter) -> None:
    if json.loads(request.body).get("stream"):
        stream_head(writer)
        chunked(writer, *events({"role": "assistant", "content": "Höf"}, {"content": "lich."}))
    else:
        respond(writer, 200, json.dumps(COMPLETION).encode(), Content_Type="application/json")


@asynccontextmanager
async def proxied_from(upstream: str, folder: Path, **options: Any) -> AsyncIterator[Proxied]:
    """A proxy for whoever runs in an event loop, which has to go on while the proxy ends."""
    context = proxied(upstream, folder, **options)
    proxy = context.__enter__()
    try:
        yield proxy
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def through(
    handler: Handler, folder: Path, use: Callable[[Web, Proxied], Awaitable[None]], path: str = "/v1", **options: Any
) -> Proxied:
    """Lets ``use`` talk to an upstream through a proxy; when it returns, all is recorded."""

    async def run() -> Proxied:
        async with serving(handler) as web, proxied_from(web.url + path, folder, **options) as proxy:
            await use(web, proxy)
        return proxy

    return asyncio.run(run())


def test_every_kind_of_client_reads_the_same_bytes_with_and_without_the_proxy(tmp_path: Path):
    async def use(web: Web, proxy: Proxied) -> None:
        def plain(url: str) -> list[bytes]:
            client = OpenAI(base_url=url, api_key="k", max_retries=0)
            made = client.chat.completions.with_raw_response.create(**BODY)  # type: ignore
            with client.chat.completions.with_streaming_response.create(**BODY, stream=True) as response:  # type: ignore
                return [made.content, response.read()]

        async def asynchronous(url: str) -> list[bytes]:
            async with AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
                made = await client.chat.completions.with_raw_response.create(**BODY)  # type: ignore
                streamed = client.chat.completions.with_streaming_response.create(**BODY, stream=True)  # type: ignore
                async with streamed as response:
                    return [made.content, await response.read()]

        for base in (f"{web.url}/v1", proxy.url):
            bodies = await asyncio.to_thread(plain, base), await asyncio.gather(asynchronous(base), asynchronous(base))
            expected = [
                json.dumps(COMPLETION).encode(),
                b"".join(events({"role": "assistant", "content": "Höf"}, {"content": "lich."})),
            ]
            assert bodies == (expected, [expected, expected])

    through(streaming, tmp_path, use)
    found = [record["response"]["choices"][0]["message"]["content"] for record in records(tmp_path)]
    assert found == ["Höflich."] * 6


@pytest.mark.parametrize(
    "target",
    [
        "/v1/models?after=a%2Fb&x=%41",
        "/",
        "/v1/files/a%20b/%7Econtent",
        "/v2/other//x/../y?",
        '/openai/x{y}|z?q=[1]"',
    ],
)
def test_any_path_is_passed_on_as_it_was_spelled(tmp_path: Path, target: str):
    async def use(web: Web, proxy: Proxied) -> None:
        host, port = httpx2.URL(proxy.url).host, httpx2.URL(proxy.url).port
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            f"DELETE {target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 404")
        assert answer.endswith(b"no such thing")
        assert web.targets == [target.removesuffix("?")]

    through(answering(404, b"no such thing"), tmp_path, use)


def test_headers_go_both_ways_and_those_of_one_connection_do_not(tmp_path: Path):
    async def handler(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 429 Slow Down\r\nContent-Length: 2\r\nX-Request-Id: r1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            b"Retry-After: 7\r\nKeep-Alive: timeout=9\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
            b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer: theirs\r\n\r\n{}"
        )

    async def use(web: Web, proxy: Proxied) -> None:
        sent = {
            "Authorization": "Bearer k", "X-Own": "1", "X-Hop": "2", "Connection": "X-Hop", "X-Umi-Record": "yes",
            "Content-Type": "application/json", "TE": "trailers", "User-Agent": "mine", "Accept": "a/b",
        }  # fmt: skip
        async with httpx2.AsyncClient() as client:
            answer = await client.post(f"{proxy.url}/chat/completions", content=b"{}", headers=sent)
            await client.get(f"{proxy.url}/models")
        assert answer.status_code == 429
        assert [(key.lower(), value) for key, value in answer.headers.raw] == [
            (b"content-length", b"2"), (b"x-request-id", b"r1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"),
            (b"retry-after", b"7"), (b"date", b"Mon, 01 Jan 2024 00:00:00 GMT"), (b"server", b"theirs"),
        ]  # fmt: skip
        seen = web.received[0].headers
        assert seen["host"] == web.url.removeprefix("http://")
        assert (seen["authorization"], seen["x-own"], seen["user-agent"], seen["accept"]) == (
            "Bearer k",
            "1",
            "mine",
            "a/b",
        )
        assert not {"x-hop", "te", "x-umi-record", "transfer-encoding"} & seen.keys()
        assert "cookie" not in web.received[1].headers  # the proxy keeps none

    through(handler, tmp_path, use)


def test_a_packed_body_stays_packed_and_is_readable_in_the_record(tmp_path: Path):
    packed = gzip.compress(json.dumps(COMPLETION).encode())

    async def use(web: Web, proxy: Proxied) -> None:
        async with httpx2.AsyncClient() as client:
            sent = {"Content-Encoding": "gzip", "Content-Type": "application/json", "Accept-Encoding": "gzip"}
            request = gzip.compress(json.dumps(BODY).encode())
            async with client.stream("POST", f"{proxy.url}/chat/completions", content=request, headers=sent) as answer:
                raw = b"".join([part async for part in answer.aiter_raw()])
        assert (raw, answer.headers["content-encoding"]) == (packed, "gzip")
        assert web.received[0].body == request

    through(answering(200, packed, Content_Encoding="gzip", Content_Type="application/json"), tmp_path, use)
    (record,) = records(tmp_path)
    assert (record["request"], record["response"]) == (BODY, COMPLETION)


def test_a_stream_comes_as_it_is_written(tmp_path: Path):
    parts = events({"content": "a"}, {"content": "b"}, {"content": "c"})
    seen = asyncio.Semaphore(0)

    async def handler(request: Received, writer: asyncio.StreamWriter) -> None:
        stream_head(writer)
        for part in parts:
            chunked(writer, part, end=False)
            await writer.drain()
            await asyncio.wait_for(seen.acquire(), 60)  # nothing more until the client has this
        chunked(writer)

    async def use(web: Web, proxy: Proxied) -> None:
        got: list[bytes] = []
        async with (
            httpx2.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{proxy.url}/chat/completions", json=BODY | {"stream": True}) as answer,
        ):
            async for part in answer.aiter_raw():
                got.append(part)
                seen.release()
        assert got == parts

    through(handler, tmp_path, use)
    assert records(tmp_path)[0]["response"]["choices"][0]["message"]["content"] == "abc"


def test_a_client_that_leaves_takes_its_request_to_the_upstream_with_it(tmp_path: Path):
    async def handler(request: Received, writer: asyncio.StreamWriter) -> None:
        stream_head(writer)
        chunked(writer, *events({"content": "a"}, done=False), end=False)
        try:
            while True:  # until the proxy closes the connection
                await writer.drain()
                writer.write(b"4\r\n: x\n\r\n")
                await asyncio.sleep(0)
        finally:
            gone.set()

    gone = asyncio.Event()

    async def use(web: Web, proxy: Proxied) -> None:
        async with (
            httpx2.AsyncClient() as client,
            client.stream("POST", f"{proxy.url}/chat/completions", json=BODY | {"stream": True}) as answer,
        ):
            await anext(answer.aiter_raw())
        await asyncio.wait_for(gone.wait(), 60)

    through(handler, tmp_path, use)
    assert records(tmp_path)[0]["problem"] == "the stream was cut"


def test_a_client_that_leaves_before_there_is_an_answer_does_too(tmp_path: Path):
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handler(request: Received, writer: asyncio.StreamWriter) -> None:
        asked.set()
        try:
            while True:  # until the proxy closes the connection
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            gone.set()

    async def use(web: Web, proxy: Proxied) -> None:
        async with httpx2.AsyncClient() as client:
            waiting = asyncio.create_task(client.post(f"{proxy.url}/chat/completions", json=BODY))
            await asked.wait()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(gone.wait(), 60)

    through(handler, tmp_path, use)
    assert (records(tmp_path)[0]["status"], records(tmp_path)[0]["problem"]) == (None, "there was no response")


@pytest.mark.parametrize("sized", [True, False])
def test_a_response_that_breaks_off_breaks_off_towards_the_client(tmp_path: Path, sized: bool):
    async def handler(request: Received, writer: asyncio.StreamWriter) -> None:
        if sized:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        else:
            stream_head(writer)
            chunked(writer, *events({"content": "a"}, done=False), end=False)
        await writer.drain()
        writer.close()

    async def use(web: Web, proxy: Proxied) -> None:
        async with httpx2.AsyncClient() as client:
            with pytest.raises(httpx2.RemoteProtocolError):
                await client.post(f"{proxy.url}/chat/completions", json=BODY)

    through(handler, tmp_path, use)
    assert records(tmp_path)[0]["problem"] == ("the response was cut" if sized else "the stream was cut")


def test_an_upstream_that_is_not_there_or_silent_is_an_error_that_clients_understand(tmp_path: Path):
    async def silent(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def closing(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.close()

    def status(handler: Handler, upstream: str | None = None, **options: Any) -> tuple[int, str]:
        got: list[Any] = []

        async def use(web: Web, proxy: Proxied) -> None:
            async with httpx2.AsyncClient() as client:
                answer = await client.post(f"{proxy.url}/chat/completions", json=BODY)
                got.append((answer.status_code, answer.json()["error"]["code"]))

        through(handler, tmp_path, use, **options)
        return got[0]

    assert status(silent, limits=ProxyLimits(silence_seconds=0.2)) == (504, "upstream_timeout")
    assert status(closing) == (502, "upstream_unreachable")
    with proxied("http://127.0.0.1:1/v1", tmp_path) as proxy:
        answer = httpx2.post(f"{proxy.url}/chat/completions", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")


def test_large_bodies_pass_both_ways_and_are_not_held(tmp_path: Path):
    part = b"x" * 65536
    count = 320  # 20 MiB

    async def handler(request: Received, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("never")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" in head.lower()
        size = 0
        while (length := int(await reader.readline(), 16)) or await reader.readline() != b"\r\n":
            size += len(await reader.readexactly(length))
            await reader.readexactly(2)
        writer.write(f"HTTP/1.1 200 OK\r\nX-Size: {size}\r\nContent-Length: {len(part) * count}\r\n\r\n".encode())
        for _ in range(count):
            writer.write(part)
            await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        limits = ProxyLimits(body_bytes=1 << 20, memory_bytes=2 << 20)
        async with proxied_from(url, tmp_path, limits=limits) as proxy:

            async def body() -> Any:
                for _ in range(count):
                    yield part

            async with httpx2.AsyncClient(timeout=60) as client:
                answer = await client.post(f"{proxy.url}/chat/completions", content=body())
            assert answer.headers["x-size"] == str(len(part) * count)
            assert len(answer.content) == len(part) * count
            assert await asyncio.to_thread(proxy.recorder._budget.take, (2 << 20) - 4096)
        server.close()
        assert proxy.tally.left_out == {"a body of more than 1048576 bytes": 1}

    asyncio.run(run())


def test_what_can_not_be_recorded_passes_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    bomb = gzip.compress(b" " * (1 << 24))
    bodies = [
        (b"{not json", {}), (b"[]", {}), (b'{"messages": 1}', {}), (b"[" * 100_000, {}), (b"\xff\xfe", {}),
        (json.dumps(BODY).encode(), {"Content-Encoding": "gzip"}), (bomb, {"Content-Encoding": "gzip"}),
        (json.dumps(BODY).encode(), {}), (json.dumps(BODY).encode(), {}),
    ]  # fmt: skip

    async def use(web: Web, proxy: Proxied) -> None:
        async with httpx2.AsyncClient() as client:
            for body, headers in bodies:
                answer = await client.post(f"{proxy.url}/chat/completions", content=body, headers=headers)
                assert (answer.status_code, answer.content) == (200, b"{}")
        assert [one.body for one in web.received] == [body for body, _ in bodies]

    limits = ProxyLimits(disk_bytes=10)
    proxy = through(answering(200, b"{}", Content_Type="application/json"), tmp_path, use, limits=limits)
    assert proxy.tally.recorded == 0
    assert sum(proxy.tally.left_out.values()) == len(bodies)
    assert proxy.tally.left_out["can't write: the record folder has reached its size (--max-disk)"] == 2
    assert caplog.text.count("--max-disk") == 1


def test_with_a_key_of_its_own_the_proxy_lets_in_who_has_it_and_keeps_the_upstreams_key_to_itself(tmp_path: Path):
    async def use(web: Web, proxy: Proxied) -> None:
        async with httpx2.AsyncClient() as client:
            refused = await client.post(
                f"{proxy.url}/chat/completions", json=BODY, headers={"Authorization": "Bearer x"}
            )
            assert (refused.status_code, web.received) == (401, [])
            keyed = {"Authorization": "Bearer clients-key-0123", "Host": "proxy.example"}
            await client.post(f"{proxy.url}/chat/completions", json=BODY, headers=keyed)
            await client.get(f"{proxy.root}/health")
        assert web.received[0].headers["authorization"] == "Bearer upstreams-key-0123"
        assert "authorization" not in web.received[1].headers

    through(
        answering(200, b"upstreams-key-0123 clients-key-0123", Content_Type="application/json"), tmp_path, use,
        api_key="clients-key-0123", upstream_key="upstreams-key-0123",
    )  # fmt: skip
    assert "key-0123" not in json.dumps(records(tmp_path))


def test_without_a_key_only_names_of_this_machine_are_taken(tmp_path: Path):
    async def use(web: Web, proxy: Proxied) -> None:
        async with httpx2.AsyncClient() as client:
            refused = await client.get(f"{proxy.url}/models", headers={"Host": "evil.example"})
        assert (refused.status_code, web.received) == (403, [])

    through(answering(200), tmp_path, use)


def test_headers_of_one_connection_are_those_that_it_names_too():
    given = [(b"Connection", b"close, X-A"), (b"x-a", b"1"), (b"X-B", b"2"), (b"Upgrade", b"h2c")]
    assert end_to_end(given) == [(b"X-B", b"2")]
    assert secrets_in([(b"authorization", b"Bearer 0123456789ab"), (b"api-key", b"unused")]) == {
        "0123456789ab", "Bearer 0123456789ab",
    }  # fmt: skip
