"""From what passed to what is recorded: unpacked, put together, chosen, masked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from alpha_umi.proxy.masking import masked_json
from alpha_umi.proxy.records import VERSION, opening
from alpha_umi.proxy.sse import StreamError, assemble
from alpha_umi.proxy.tape import Body, Tape

_PIECE = 1 << 12
_SAME_CONVERSATION = ("user", "prompt_cache_key")
_SHOWN = 2000  # characters of an error that is no JSON


class NotRecorded(Exception):
    """An exchange that is left out; says why, equal causes in equal words."""


def record_of(tape: Tape, sample: float) -> dict[str, Any]:
    """The record of an exchange.

    Args:
        tape: What passed.
        sample: Share of the conversations that are recorded.

    Raises:
        NotRecorded: It is left out: no tools in it, not in the sample, a body that can't be read.
    """
    try:
        request = _request(tape.request)
        if not uses_tools(request):
            raise NotRecorded("no tools in it")
        if not in_sample(request, sample):
            raise NotRecorded("not in the sample")
        response, problem = _response(tape)
        known = {f"SECRET_{number}": secret for number, secret in enumerate(sorted(tape.secrets))}
        record = {
            "version": VERSION, "id": tape.id, "time": round(tape.started, 3), "seconds": round(tape.seconds, 3),
            "path": tape.path, "status": tape.status, "problem": problem, "request": request, "response": response,
        }  # fmt: skip
        return masked_json(record, os.environ | known)
    except RecursionError as error:
        raise NotRecorded("JSON nested too deeply") from error


def uses_tools(request: Mapping[str, Any]) -> bool:
    """Whether a request offers tools, or has calls or observations in its history."""
    if request.get("tools") or request.get("functions"):
        return True
    messages = [one for one in request["messages"] if isinstance(one, dict)]
    return any(
        one.get("role") in ("tool", "function") or one.get("tool_calls") or one.get("function_call") for one in messages
    )


def in_sample(request: Mapping[str, Any], share: float) -> bool:
    """Whether a conversation is in the sample: the same answer for each of its requests, today and tomorrow.

    It depends on what the user says first, and on ``user`` and ``prompt_cache_key``.
    """
    named = [str(request.get(key)) for key in _SAME_CONVERSATION]
    digest = hashlib.sha256(opening(request["messages"]) + "\0".join(named).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def _request(body: Body) -> dict[str, Any]:
    request = _parsed(unpacked(body))
    if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
        raise NotRecorded("a request that is no JSON object with messages")
    return request


def _response(tape: Tape) -> tuple[Any, str | None]:
    """What was answered, and what is wrong with it, if something is."""
    if tape.status is None:
        return None, "there was no response"
    data = unpacked(tape.response)
    if tape.response.kind == "text/event-stream":
        try:
            stream = assemble(data)
        except StreamError as error:
            return None, "the stream was cut" if not tape.complete else str(error)
        return stream.response, stream.problem
    if not tape.complete:
        return None, "the response was cut"
    response = _parsed(data)
    if not 200 <= tape.status < 300:
        text = data.decode("utf-8", "replace")[:_SHOWN]
        return text if response is None else response, f"the upstream answered {tape.status}"
    return response, None if isinstance(response, dict) else "a response that is no JSON object"


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


class _Pieces(httpx2.SyncByteStream):
    """Small pieces, so that a body that unpacks to a huge one is noticed in time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), _PIECE):
            yield self._data[start : start + _PIECE]


def unpacked(body: Body) -> bytes:
    """The body without its content encoding: gzip and deflate, and br and zstd where their packages are installed.

    Raises:
        NotRecorded: It was not kept, can't be unpacked, or is too large when it is.
    """
    if body.lost is not None:
        raise NotRecorded(body.lost)
    if not body.encoding:
        return body.bytes()
    response = httpx2.Response(200, headers={"content-encoding": body.encoding}, stream=_Pieces(body.bytes()))
    out = bytearray()
    try:
        for part in response.iter_bytes():
            out += part
            if len(out) > body.most:
                raise NotRecorded(f"a body of more than {body.most} bytes")
    except httpx2.DecodingError as error:
        raise NotRecorded(f"a body that can't be unpacked ({body.encoding[:20]})") from error
    return bytes(out)
