"""Which headers go on, and what in them is secret."""

from __future__ import annotations

from collections.abc import Iterable

from alpha_umi.tools.text import is_secret_name

Headers = Iterable[tuple[bytes, bytes]]

OPT_OUT = "x-umi-record"
"""A request with this header, at ``no``, is not recorded; it is for the proxy, and goes no further."""

_HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
_FOR_THE_PROXY = frozenset({"host", "expect", OPT_OUT})
_NO = frozenset({"no", "false", "off", "0"})
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
_SHORTEST_KEY = 12
"""Characters; local servers are sent words such as ``unused``, which conversations may hold."""


def value_of(headers: Headers, name: str) -> str:
    """The values of a header, joined by commas; empty if there is none."""
    found = [value.decode("latin-1").strip() for key, value in headers if _name(key) == name]
    return ", ".join(found)


def opted_out(headers: Headers) -> bool:
    """Whether the client asks not to be recorded."""
    return value_of(headers, OPT_OUT).lower() in _NO


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers that are not of one connection alone: RFC 9110, 7.6.1."""
    headers = list(headers)
    named = {one.strip().lower() for one in value_of(headers, "connection").split(",")}
    return [(key, value) for key, value in headers if _name(key) not in _HOP_BY_HOP | named]


def for_upstream(headers: Headers) -> list[tuple[bytes, bytes]]:
    """What of a client's headers is sent on; the host is that of the upstream."""
    return [(key, value) for key, value in end_to_end(headers) if _name(key) not in _FOR_THE_PROXY]


def secrets_in(headers: Headers) -> frozenset[str]:
    """The keys, tokens and cookies that a request brings."""
    found: set[str] = set()
    for key, raw in headers:
        if (name := _name(key)) in _CREDENTIALS or is_secret_name(name):
            value = raw.decode("latin-1").strip()
            found |= {value, value.partition(" ")[2].strip()}
            found |= {part.partition("=")[2].strip() for part in value.split(";")} if name == "cookie" else set()
    return frozenset(one for one in found if len(one) >= _SHORTEST_KEY)


def _name(key: bytes) -> str:
    return key.decode("latin-1").lower()
