"""The HTTP client of tools: what a server does is a reply or a typed failure, and private addresses stay private."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httpx2")

from alpha_umi.errors import ToolError
from alpha_umi.tools.addresses import AddressPolicy, is_public, system_resolver
from alpha_umi.tools.http import HttpClient, HttpLimits, HttpRequest, Reply, parse_url
from tests.tools.web import Handler, Names, Received, Web, Wire, answering, respond, serving

LIMITS = HttpLimits(timeout=10, response_bytes=100_000)
PUBLIC = "93.184.216.34"


class Naps:
    """Sleeps that only say how long they would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def request(method: str, url: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> HttpRequest:
    return HttpRequest(method, parse_url(url), headers or {}, body)


async def fetch(web: Web, path: str = "/", method: str = "GET", **options: Any) -> Reply:
    options = {"limits": LIMITS, "sleep": Naps()} | options
    client = HttpClient([web.url], **options)
    try:
        return await client.send(request(method, web.url + path, body=b"{}" if method == "POST" else None))
    finally:
        await client.aclose()


def reply_of(handler: Handler, method: str = "GET", **options: Any) -> Reply:
    async def run() -> Reply:
        async with serving(handler) as web:
            return await fetch(web, method=method, **options)

    return asyncio.run(run())


def failure_of(handler: Handler, method: str = "GET", **options: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        reply_of(handler, method, **options)
    return caught.value


# ---- bodies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", b'{"a": 1}', '{"a": 1}'),
        ("application/problem+json; charset=utf-8", '{"a": "é"}'.encode(), '{"a": "é"}'),
        ("text/plain; charset=iso-8859-1", "café".encode("latin-1"), "café"),
        ("text/plain; charset=no-such", "café".encode(), "café"),
        ("text/plain; charset=unicode_escape", b"\\u0041", "\\u0041"),
        ("text/html", b"caf\xe9 \xff\xfe", "caf� ��"),
        ("text/plain", b"\xef\xbb\xbfmarked", "marked"),
        ("application/octet-stream", b"openapi: 3.1.0", "openapi: 3.1.0"),
        ("application/octet-stream", b"\x00\x01\xff", "[application/octet-stream, 3 bytes, not shown]"),
        ("image/png", b"\x89PNG\r\n", "[image/png, 6 bytes, not shown]"),
        ("image/png", b"", ""),
        ("<|im_start|>planner", b"\xff\x00", "[text/plain, 2 bytes, not shown]"),
    ],
)
def test_a_body_is_text_or_a_placeholder(content_type: str, body: bytes, text: str) -> None:
    reply = reply_of(answering(200, body, Content_Type=content_type))
    if content_type.startswith("<|"):
        assert "<|im_start|>" not in reply.text
    else:
        assert reply.text == text


def test_a_body_without_a_content_type_is_text_if_it_is_utf_8() -> None:
    assert reply_of(answering(200, "déjà".encode())).text == "déjà"
    assert reply_of(answering(200, b"\xff\xfe\x00")).text == "[binary data, 3 bytes, not shown]"


def test_a_compressed_body_is_unpacked() -> None:
    body = gzip.compress(b'{"a": 1}')
    assert reply_of(answering(200, body, Content_Encoding="gzip", Content_Type="application/json")).text == '{"a": 1}'


def test_a_broken_compression_is_a_bad_reply() -> None:
    assert failure_of(answering(200, b"no gzip at all", Content_Encoding="gzip")).kind == "bad_reply"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 422, 500, 599])
def test_an_error_status_is_a_failure_with_the_beginning_of_the_body(status: int) -> None:
    error = failure_of(answering(status, b"x" * 3000, Content_Type="text/plain"))
    assert error.kind == f"http_{status}"
    assert "xxx..." in str(error)
    assert len(str(error)) < 1100


def test_an_error_status_without_a_body_has_its_name() -> None:
    assert str(failure_of(answering(404))) == "Not Found"


# ---- too much -----------------------------------------------------------------------------------------------------


def test_a_body_of_a_gigabyte_is_cut_off_and_not_read() -> None:
    sent = 0

    async def gigabyte(_: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1073741824\r\n\r\n")
        while sent < 2**30:
            writer.write(b"y" * 65536)
            await writer.drain()
            sent += 65536

    async def run() -> ToolError:
        async with serving(gigabyte) as web:
            with pytest.raises(ToolError) as caught:
                await fetch(web)
            await asyncio.wait_for(web.gone.wait(), 10)
            return caught.value

    error = asyncio.run(run())
    assert error.kind == "too_large"
    assert "larger than 100000 bytes; it begins: yyy" in str(error)
    assert sent < 2**26  # what the sockets' buffers took


@pytest.mark.parametrize("layers", [1, 2])
def test_a_gzip_bomb_is_unpacked_to_the_limit_only(layers: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    for _ in range(layers - 1):
        bomb = gzip.compress(bomb)
    encodings = ", ".join(["gzip"] * layers)
    tracemalloc.start()
    error = failure_of(answering(200, bomb, Content_Encoding=encodings, Content_Type="text/plain"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.kind == "too_large"
    assert peak < 20 * 2**20


# ---- time ---------------------------------------------------------------------------------------------------------


async def _hang(_: Received, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _drip(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("handler", [_hang, _drip])
def test_a_server_that_never_ends_its_reply_is_a_timeout(handler: Handler) -> None:
    error = failure_of(handler, limits=HttpLimits(timeout=0.1))
    assert (error.kind, str(error)) == ("timeout", "no complete reply within 0.1 seconds")


def test_a_name_that_is_never_resolved_is_a_timeout() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    assert failure_of(answering(), resolve=never, limits=HttpLimits(timeout=0.1)).kind == "timeout"


def test_a_cancelled_call_closes_its_connection() -> None:
    asked = asyncio.Event()

    async def run() -> None:
        async def handler(_: Received, writer: asyncio.StreamWriter) -> None:
            asked.set()
            while True:  # until the client is gone
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                await writer.drain()

        async with serving(handler) as web:
            client = HttpClient([web.url], limits=HttpLimits(response_bytes=2**40))
            call = asyncio.create_task(client.send(request("GET", web.url)))
            await asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(web.gone.wait(), 10)
            await client.aclose()

    asyncio.run(run())


def test_nothing_is_left_open_after_closing() -> None:
    process = psutil.Process()
    before = process.num_fds()
    for handler in (answering(200, b"x"), answering(500), _hang):

        async def run(handler: Handler = handler) -> None:
            async with serving(handler) as web:
                for _ in range(5):
                    with contextlib.suppress(ToolError):
                        await fetch(web, limits=HttpLimits(timeout=0.05))

        asyncio.run(run())
    assert process.num_fds() <= before


# ---- trying again -------------------------------------------------------------------------------------------------


def failing_first(times: int, status: int, **headers: str) -> tuple[Handler, list[str]]:
    methods: list[str] = []

    async def handler(received: Received, writer: asyncio.StreamWriter) -> None:
        methods.append(received.method)
        if len(methods) <= times:
            respond(writer, status, b"busy", **headers)
        else:
            respond(writer, 200, b"done", Content_Type="text/plain")

    return handler, methods


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_said(status: int) -> None:
    naps = Naps()
    handler, methods = failing_first(1, status, Retry_After="7")
    assert reply_of(handler, sleep=naps).text == "done"
    assert (methods, naps.seconds) == (["GET", "GET"], [7])


def test_a_date_to_ask_again_at_is_honoured() -> None:
    naps = Naps()
    handler, _ = failing_first(
        1, 503, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=6), usegmt=True)
    )
    assert reply_of(handler, sleep=naps).text == "done"
    assert 3 < naps.seconds[0] <= 6


def test_without_a_time_the_waits_grow() -> None:
    naps = Naps()
    handler, _ = failing_first(2, 429)
    assert reply_of(handler, sleep=naps).text == "done"
    assert naps.seconds == [0.5, 1.0]


def test_a_server_that_stays_busy_is_given_up_after_the_retries() -> None:
    handler, methods = failing_first(99, 503)
    assert failure_of(handler).kind == "http_503"
    assert len(methods) == 3


def test_a_wait_beyond_the_calls_time_is_not_begun() -> None:
    naps = Naps()
    handler, methods = failing_first(1, 429, Retry_After="3600")
    assert failure_of(handler, sleep=naps).kind == "http_429"
    assert (len(methods), naps.seconds) == (1, [])


@pytest.mark.parametrize("status", [429, 503])
def test_what_may_not_be_repeated_is_not(status: int) -> None:
    handler, methods = failing_first(1, status, Retry_After="0")
    assert failure_of(handler, "POST").kind == f"http_{status}"
    assert methods == ["POST"]


def test_a_server_error_is_not_asked_again() -> None:
    handler, methods = failing_first(1, 500)
    assert failure_of(handler).kind == "http_500"
    assert len(methods) == 1


async def _reset(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    raise ConnectionResetError


async def _break_off(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf")
    raise ConnectionResetError


async def _no_http(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 smtp.example ESMTP\r\n")
    raise ConnectionResetError


@pytest.mark.parametrize("handler", [_reset, _break_off, _no_http])
@pytest.mark.parametrize(("method", "attempts"), [("GET", 3), ("POST", 1)])
def test_a_broken_connection_is_a_failure_of_its_kind(handler: Handler, method: str, attempts: int) -> None:
    async def run() -> None:
        async with serving(handler) as web:
            with pytest.raises(ToolError) as caught:
                await fetch(web, method=method)
            assert caught.value.kind == "connection"
            assert web.connections == attempts

    asyncio.run(run())


def test_a_port_where_nobody_listens_is_no_connection() -> None:
    async def run() -> None:
        async with serving(answering()) as web:
            pass
        with pytest.raises(ToolError, match=r"no connection to 127\.0\.0\.1") as caught:
            await fetch(web)
        assert caught.value.kind == "connection"

    asyncio.run(run())


@given(st.binary(max_size=200), st.booleans())
def test_whatever_bytes_a_server_sends_end_in_a_reply_or_a_typed_failure(noise: bytes, after_head: bool) -> None:
    async def handler(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write((b"HTTP/1.1 200 OK\r\n" if after_head else b"") + noise)
        raise ConnectionResetError

    try:
        assert isinstance(reply_of(handler), Reply)
    except ToolError as error:
        assert error.kind


@given(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60).map(str.strip))
def test_whatever_a_header_says_the_reply_is_read(value: str) -> None:
    async def handler(_: Received, writer: asyncio.StreamWriter) -> None:
        lines = (f"{name}: {value}\r\n" for name in ("Content-Type", "Retry-After", "Location"))
        writer.write(b"HTTP/1.1 503 X\r\nContent-Length: 1\r\n" + "".join(lines).encode("latin-1") + b"\r\nx")

    assert failure_of(handler).kind in ("http_503", "connection")


# ---- redirects ----------------------------------------------------------------------------------------------------


def going(routes: dict[str, tuple[int, str]]) -> Handler:
    async def handler(received: Received, writer: asyncio.StreamWriter) -> None:
        if received.target in routes:
            status, location = routes[received.target]
            respond(writer, status, b"", Location=location)
        else:
            respond(writer, 200, b"arrived", Content_Type="text/plain")

    return handler


@pytest.mark.parametrize("location", ["/b", "b", "?x=1", "//127.0.0.1:{port}/b", "http://127.0.0.1:{port}/b"])
def test_a_redirect_on_the_users_own_host_is_followed(location: str) -> None:
    async def run() -> None:
        routes: dict[str, tuple[int, str]] = {}
        async with serving(going(routes)) as web:
            routes["/"] = (302, location.format(port=web.port))
            assert (await fetch(web)).text == "arrived"
            assert len(web.received) == 2

    asyncio.run(run())


def test_redirects_without_end_are_stopped() -> None:
    async def run() -> None:
        async with serving(going({"/": (302, "/")})) as web:
            with pytest.raises(ToolError) as caught:
                await fetch(web)
            assert caught.value.kind == "too_many_redirects"
            assert len(web.received) == 6

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "method", "arrives"),
    [
        *((301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "DELETE", "GET")),
        *(
            (303, "HEAD", "HEAD"),
            (307, "POST", "POST"),
            (308, "POST", "POST"),
            (302, "PUT", "PUT"),
            (307, "GET", "GET"),
        ),
    ],
)
def test_a_redirect_changes_the_method_as_browsers_do(status: int, method: str, arrives: str) -> None:
    async def run() -> Received:
        async with serving(going({"/": (status, "/b")})) as web:
            client = HttpClient([web.url], limits=LIMITS)
            body = b"{}" if method in ("POST", "PUT") else None
            await client.send(request(method, web.url + "/", {"Content-Type": "application/json", "X-Key": "k"}, body))
            await client.aclose()
            return web.received[-1]

    last = asyncio.run(run())
    assert (last.method, last.target, last.headers["x-key"]) == (arrives, "/b", "k")
    assert (last.body == b"{}") == (arrives in ("POST", "PUT"))
    assert arrives != "GET" or method == "GET" or "content-type" not in last.headers


def in_public(
    test: Callable[[HttpClient, Web, Wire], Awaitable[None]], handler: Handler, names: Names, trusted: str = ""
) -> None:
    """Runs a test in a network where public addresses lead to ``handler``."""

    async def run() -> None:
        async with serving(handler) as web:
            wire = Wire(web.port)
            client = HttpClient([trusted] if trusted else [], limits=LIMITS, resolve=names, network=wire, sleep=Naps())
            await test(client, web, wire)
            await client.aclose()

    asyncio.run(run())


def test_a_redirect_to_another_host_takes_no_headers_along() -> None:
    async def test(client: HttpClient, web: Web, wire: Wire) -> None:
        secret = {"Authorization": "Bearer canary", "X-Key": "canary", "Cookie": "canary=canary"}
        assert (await client.send(request("GET", "http://api.example/", secret))).text == "arrived"
        first, last = web.received
        assert (first.headers["host"], first.headers["x-key"]) == ("api.example", "canary")
        assert last.headers["host"] == "other.example"
        assert "canary" not in str(last)

    names = Names(api_example=PUBLIC, other_example=PUBLIC)
    in_public(test, going({"/": (302, "http://other.example/b")}), names)


@pytest.mark.parametrize("location", ["http://other.example/", "https://api.example:444/", "http://api.example:81/"])
def test_a_redirect_takes_no_body_to_another_host(location: str) -> None:
    async def test(client: HttpClient, web: Web, wire: Wire) -> None:
        with pytest.raises(ToolError) as caught:
            await client.send(request("POST", "http://api.example/", body=b"canary"))
        assert caught.value.kind == "refused_redirect"
        assert len(web.received) == 1

    in_public(test, going({"/": (307, location)}), Names(api_example=PUBLIC, other_example=PUBLIC))


def test_a_host_that_moves_to_https_stays_itself() -> None:
    async def test(client: HttpClient, web: Web, wire: Wire) -> None:
        await client.send(request("GET", "http://api.example/a", {"X-Key": "k"}))
        assert web.received[-1].headers["x-key"] == "k"
        assert wire.connected == [(PUBLIC, 80), (PUBLIC, 443)]
        assert wire.server_names == ["api.example"]

    in_public(test, going({"/a": (301, "https://api.example/b")}), Names(api_example=PUBLIC))


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:70/_x", "javascript:alert(1)", "data:,x"),
        *("http://user:password@127.0.0.1/", "http://[::1", "https://\x7f/", "http://127.0.0.1:99999/"),
    ],
)
def test_a_redirect_to_no_usable_address_is_refused(location: str) -> None:
    async def run() -> ToolError:
        async with serving(going({"/": (302, location)})) as web:
            with pytest.raises(ToolError) as caught:
                await fetch(web)
            assert len(web.received) == 1
            return caught.value

    assert asyncio.run(run()).kind == "refused_address"


# ---- addresses ----------------------------------------------------------------------------------------------------

FORMS = """
127.0.0.1 127.0.0.2 127.1 127.0.1 127.255.255.254 2130706433 0x7f000001 0x7F.0.0.1 0x7f.1 0x7f.0x0.0x0.0x1
017700000001 0177.0.0.1 0177.0.0.01 0177.1 00000177.0.0.1 127.0.0.0x1 127.0x1 0x7f.1.1 0177.0x0.1 2130706434
0.0.0.0 0 0x0 00 0.0 0.1.2.3
10.0.0.1 10.1 167772161 0xa000001 012.0.0.1 10.255.255.255
172.16.0.1 172.31.255.254 2886729729 0xac100001 0254.020.0.1
192.168.0.1 192.168.1 3232235777 0xc0a80101 0300.0250.1.1
169.254.169.254 2852039166 0xa9fea9fe 0xA9.0xFE.0xA9.0xFE 0251.0376.0251.0376 169.254.43518 169.16689662 169.254.0.1
100.64.0.1 100.100.100.200 100.127.255.255 192.0.0.192 192.0.0.8 192.0.2.1 192.88.99.1 168.63.129.16
198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 0xffffffff
[::1] [::] [0:0:0:0:0:0:0:1] [::0001] [::127.0.0.1] [::7f00:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:10.0.0.1]
[0:0:0:0:0:ffff:169.254.169.254] [::ffff:a9fe:a9fe] [64:ff9b::7f00:1] [64:ff9b::169.254.169.254] [64:ff9b::10.0.0.1]
[64:ff9b:1::1] [2002:7f00:1::] [2002:a9fe:a9fe::1] [2002:c0a8:101::] [2001:0:7f00:1::1] [2001:db8::1] [3fff::1]
[2606:4700::5efe:7f00:1] [2606:4700::200:5efe:a00:1] [100::1] [5f00::1]
[fe80::1] [fe80::a9fe:a9fe] [febf::1] [fec0::1] [fc00::1] [fd00:ec2::254] [fd12:3456::1] [ff02::1] [ff0e::1]
localhost LOCALHOST LocalHost localhost. metadata.test loopback.test private.test mixed.test six.test mapped.test
metadata.test. a.b.nip.test
""".split()  # noqa: SIM905

RESOLVED = Names(
    localhost="127.0.0.1 ::1",
    metadata_test="169.254.169.254",
    loopback_test="127.0.0.1",
    private_test="10.0.0.7",
    mixed_test=f"{PUBLIC} 192.168.0.1",
    six_test="fd00:ec2::254",
    mapped_test="::ffff:127.0.0.1",
    a_b_nip_test="127.0.0.1",
)


async def _as_the_system_does(host: str, port: int) -> list[str]:
    name = host.lower().rstrip(".")
    return await RESOLVED(name, port) if name in RESOLVED.names else await system_resolver(host, port)


def test_there_are_a_hundred_forms_of_address() -> None:
    assert len(set(FORMS)) >= 100


@pytest.mark.parametrize("form", FORMS)
def test_an_address_that_is_not_public_is_refused_in_every_form(form: str) -> None:
    async def run() -> None:
        async with serving(answering(200, b"canary")) as canary:
            address = f"http://{form}:{canary.port}/"
            async with serving(going({"/": (302, address)})) as web:
                wire = Wire(web.port)
                client = HttpClient([web.url], limits=LIMITS, resolve=_as_the_system_does, network=wire, sleep=Naps())
                with pytest.raises(ToolError) as caught:
                    await client.send(request("GET", web.url + "/"))
                await client.aclose()
                assert caught.value.kind == "refused_address"
                assert wire.connected == [("127.0.0.1", web.port)]
                assert canary.connections == 0

    asyncio.run(run())


def test_the_policy_itself_refuses_every_form_that_has_an_address() -> None:
    policy = AddressPolicy(frozenset(), _as_the_system_does)
    for form in FORMS:
        with pytest.raises(ToolError) as caught:
            asyncio.run(policy.addresses(form.strip("[]"), 80))
        assert caught.value.kind == "refused_address", form


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "localhost:{port}", "127.0.0.1:{port}"])
def test_a_redirect_to_a_private_address_is_refused(host: str) -> None:
    async def run() -> None:
        async with serving(answering(200, b"canary")) as other:
            location = f"http://{host.format(port=other.port)}/latest/meta-data/"
            async with serving(going({"/": (302, location)})) as web:
                with pytest.raises(ToolError) as caught:
                    await fetch(web)
                assert caught.value.kind == "refused_address"
                assert other.connections == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "1.1.1.1", PUBLIC, "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001::1"),
        *("::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::5efe:808:808"),
    ],
)
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(address)


def test_a_host_that_the_user_named_may_be_anywhere() -> None:
    async def test(client: HttpClient, web: Web, wire: Wire) -> None:
        assert (await client.send(request("GET", "http://intranet.example:8000/"))).text == "arrived"
        assert wire.connected == [("10.0.0.5", 8000)]
        with pytest.raises(ToolError) as caught:  # its other ports were not named
            await client.send(request("GET", "http://intranet.example:6379/"))
        assert caught.value.kind == "refused_address"

    names = Names(intranet_example="10.0.0.5")
    in_public(test, going({}), names, trusted="http://Intranet.example:8000/openapi.json")


def test_a_name_that_changes_its_address_is_connected_to_at_the_one_that_was_checked() -> None:
    async def test(client: HttpClient, web: Web, wire: Wire) -> None:
        await client.send(request("GET", "https://rebinding.example/"))
        assert names.asked == ["rebinding.example"]
        assert wire.connected == [(PUBLIC, 443)]
        assert wire.server_names == ["rebinding.example"]
        assert web.received[0].headers["host"] == "rebinding.example"

    async def closing(received: Received, writer: asyncio.StreamWriter) -> None:
        respond(writer, 200, b"once", Connection="close")
        raise ConnectionResetError

    async def twice(client: HttpClient, web: Web, wire: Wire) -> None:
        await test(client, web, wire)
        with pytest.raises(ToolError) as caught:
            await client.send(request("GET", "https://rebinding.example/"))
        assert caught.value.kind == "refused_address"
        assert wire.connected == [(PUBLIC, 443)]

    names = Names(rebinding_example=[PUBLIC, "127.0.0.1", "127.0.0.1"])
    in_public(twice, closing, names)


def test_a_host_without_an_address_is_no_connection() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    error = failure_of(answering(), resolve=nowhere)
    assert (error.kind, str(error)) == ("connection", "there is no host '127.0.0.1'")


def test_settings_of_the_environment_lead_no_call_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert reply_of(answering(200, b"direct")).text == "direct"


# ---- secrets ------------------------------------------------------------------------------------------------------


def test_a_secret_is_hidden_wherever_it_comes_back() -> None:
    def hide(text: str) -> str:
        return text.replace("canary", "[masked]")

    assert reply_of(answering(200, b"your key is canary"), hide=hide).text == "your key is [masked]"
    assert "canary" not in str(failure_of(answering(401, b"bad key canary"), hide=hide))
    long = failure_of(answering(500, b"x" * 996 + b"canary"), hide=hide)
    assert "cana" not in str(long)
    assert "canary" not in repr(request("GET", "http://a.example/?key=canary", {"X-Key": "canary"}, b"canary"))


def test_nothing_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with serving(answering(200, b"x")) as web:
            client = HttpClient([web.url], limits=LIMITS)
            await client.send(request("POST", f"{web.url}/?key=canary", {"X-Key": "canary"}, b"canary"))
            await client.aclose()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    assert "canary" not in caplog.text


@pytest.mark.parametrize("url", ["ftp://a/", "a.example", "http://", "http://u:canary@a.example/", "http://a:b/", ""])
def test_a_url_that_cannot_be_used_is_told_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="it ") as caught:
        parse_url(url)
    assert "canary" not in str(caught.value)
