"""A recorded exchange as it is in the files, and what makes two of them one conversation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

VERSION = 1
REASONING = ("reasoning_content", "reasoning", "thinking")
_INSTRUCTIONS = ("system", "developer")


class Record(BaseModel):
    """One line of a record file.

    Attributes:
        version: Of this form.
        id: Of the exchange.
        time: When it began, in seconds since the epoch.
        seconds: That it took.
        path: That was asked for.
        status: Of the response; None if there was none.
        problem: Why there is no whole response, or None.
        request: The request's body.
        response: A chat completion, a stream put together; of an error whatever the upstream said.
    """

    model_config = ConfigDict(strict=True)

    version: Literal[1]
    id: str
    time: float
    seconds: float
    path: str
    status: int | None
    problem: str | None
    request: dict[str, Any]
    response: Any


def opening(messages: Sequence[Any]) -> bytes:
    """A digest of what the user says first."""
    first = next((one for one in messages if isinstance(one, dict) and one.get("role") == "user"), {})
    return _digest(b"", first)


def states(messages: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
    """After each message that is no instruction: its place, and a digest of the conversation up to there.

    Instructions are left out because many applications change them from request to request (the time of day), and so
    is all that clients lose or rewrite when they send a message back: rationales, the spelling of arguments, ids, the
    text beside calls.
    """
    state = b""
    for place, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") not in _INSTRUCTIONS:
            state = _digest(state, message)
            yield place, state


def state_after(state: bytes, reply: Mapping[str, Any]) -> bytes:
    """The digest of a conversation that goes on with this message."""
    return _digest(state, reply)


def instructions(messages: Sequence[Any]) -> bytes:
    """A digest of what `states` leaves out."""
    kept = [one.get("content") for one in messages if isinstance(one, dict) and one.get("role") in _INSTRUCTIONS]
    return hashlib.sha256(json.dumps(kept).encode()).digest()


def calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The function objects that a message calls, in order."""
    calls = message.get("tool_calls")
    found = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [one for one in (*found, message.get("function_call")) if isinstance(one, dict)]


def _digest(state: bytes, message: Mapping[str, Any]) -> bytes:
    role = "tool" if message.get("role") == "function" else message.get("role")
    calls = [[call.get("name"), _canonical(call.get("arguments"))] for call in calls_of(message)]
    said = calls or _said(message.get("content")) or _said(message.get("refusal"))
    return hashlib.sha256(state + json.dumps([role, said], sort_keys=True).encode()).digest()


def _canonical(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return arguments


def _said(content: Any) -> Any:
    """A text without the spaces around it; text parts as one text."""
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    if parts and len(texts) == len(parts) and all(isinstance(text, str) for text in texts):
        content = "".join(map(str, texts))
    return content.strip() if isinstance(content, str) else content
