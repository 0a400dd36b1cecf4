"""A streamed chat completion, put together: what the same response would have been without ``stream``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

_DONE = "[DONE]"


class StreamError(ValueError):
    """The stream is none of chat completion chunks; says why."""


@dataclass(frozen=True)
class Stream:
    """What a stream brought.

    Attributes:
        response: A chat completion.
        problem: Why it isn't whole, or None: it was cut, or the upstream reported an error in the middle.
    """

    response: dict[str, Any]
    problem: str | None


def assemble(data: bytes) -> Stream:
    """Puts the server-sent events of a stream together.

    Raises:
        StreamError: An event is no JSON object.
    """
    whole, done, error = _Completion(), False, False
    for text in _events(data):
        if text.strip() == _DONE:
            done = True
            continue
        chunk = _parsed(text)
        error = error or bool(chunk.get("error"))
        whole.add(chunk)
    ended = done or whole.finished
    problem = "the upstream reported an error in the stream" if error else None if ended else "the stream was cut"
    return Stream(whole.response(), problem)


def _events(data: bytes) -> Iterator[str]:
    request = httpx2.Request("GET", "http://stream")  # the library wants one to name in its errors
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=data, request=request)
    return (event.data for event in httpx2.EventSource(response, max_event_size=None) if event.data.strip())


def _parsed(text: str) -> dict[str, Any]:
    try:
        chunk = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StreamError("an event of the stream is not JSON") from error
    if not isinstance(chunk, dict):
        raise StreamError("an event of the stream is no JSON object")
    return chunk


@dataclass
class _Completion:
    """A chat completion that grows."""

    fields: dict[str, Any] = field(default_factory=dict)
    choices: dict[int, _Choice] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every choice has said why it ended."""
        return bool(self.choices) and all(choice.finish_reason is not None for choice in self.choices.values())

    def add(self, chunk: Mapping[str, Any]) -> None:
        """One chunk. Later values of what stands beside the choices go before earlier ones."""
        self.fields |= {key: value for key, value in chunk.items() if key not in ("choices", "object") and value}
        for choice in _objects(chunk.get("choices")):
            index = choice.get("index")
            self.choices.setdefault(index if isinstance(index, int) else 0, _Choice()).add(choice)

    def response(self) -> dict[str, Any]:
        """As it now is."""
        choices = [choice.whole(index) for index, choice in sorted(self.choices.items())]
        return self.fields | {"object": "chat.completion", "choices": choices}


@dataclass
class _Choice:
    message: dict[str, Any] = field(default_factory=dict)
    calls: list[_Call] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, choice: Mapping[str, Any]) -> None:
        if isinstance(choice.get("finish_reason"), str):
            self.finish_reason = choice["finish_reason"]
        delta = choice.get("delta")
        for key, value in delta.items() if isinstance(delta, Mapping) else ():
            if key == "tool_calls":
                for part in _objects(value):
                    self._call(part).add(part)
            elif key == "function_call" and isinstance(value, Mapping):
                call = _Call(0, function=self.message.setdefault(key, {"name": "", "arguments": ""}))
                call.add({"function": value})
            elif key != "role":
                self.message[key] = _joined(self.message.get(key), value)

    def _call(self, part: Mapping[str, Any]) -> _Call:
        """The call that a delta goes on with.

        It is the one of its index, or without one the last. Some servers give every call the same index: a name under
        another id begins a new call.
        """
        index, call_id = part.get("index"), part.get("id")
        found = next((c for c in reversed(self.calls) if index is None or c.index == index), None)
        other = call_id and found is not None and found.id and found.id != call_id
        if found is None or (other and _function(part).get("name")):
            found = _Call(index if isinstance(index, int) else len(self.calls))
            self.calls.append(found)
        return found

    def whole(self, index: int) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None} | self.message
        if self.calls:
            message["tool_calls"] = [call.whole() for call in self.calls]
        return {"index": index, "message": message, "finish_reason": self.finish_reason}


@dataclass
class _Call:
    index: int
    id: str | None = None
    kind: str = "function"
    function: dict[str, str] = field(default_factory=lambda: {"name": "", "arguments": ""})

    def add(self, part: Mapping[str, Any]) -> None:
        call_id, kind, function = part.get("id"), part.get("type"), _function(part)
        self.id = self.id or (call_id if isinstance(call_id, str) and call_id else None)
        self.kind = kind if isinstance(kind, str) and kind else self.kind
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(name, str) and name != self.function["name"]:  # some servers repeat it
            self.function["name"] += name
        if isinstance(arguments, str):
            self.function["arguments"] += arguments
        elif arguments is not None:
            self.function["arguments"] += json.dumps(arguments)

    def whole(self) -> dict[str, Any]:
        given = {} if self.id is None else {"id": self.id}
        return given | {"type": self.kind, "function": self.function}


def _function(part: Mapping[str, Any]) -> Mapping[str, Any]:
    function = part.get("function")
    return function if isinstance(function, Mapping) else {}


def _objects(value: Any) -> Iterable[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _joined(before: Any, value: Any) -> Any:
    """What a field is after a delta: texts and lists grow, anything else is replaced, nothing changes nothing."""
    if value is None or before is None:
        return before if value is None else value
    if isinstance(before, str) and isinstance(value, str):
        return before + value
    return [*before, *value] if isinstance(before, list) and isinstance(value, list) else value
