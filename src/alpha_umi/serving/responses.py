"""What the client is sent: OpenAI's objects, whole or in chunks."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.responses import Response

from alpha_umi.serving.errors import ApiError
from alpha_umi.serving.job import Answer, Delta

_PIECE = 64
"""Characters of a call's arguments in one chunk."""


def as_json(value: Any) -> bytes:
    """JSON in ASCII, which holds any text, half a surrogate pair included."""
    return json.dumps(value, separators=(",", ":")).encode()


def error_response(error: ApiError) -> Response:
    """An error, in OpenAI's shape."""
    return Response(as_json(error.body()), error.status, dict(error.headers), "application/json")


@dataclass(frozen=True)
class Envelope:
    """What all parts of a response have in common.

    Attributes:
        model: The name that is served.
        fingerprint: Of what made the tokens.
    """

    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answers: Sequence[Answer]) -> bytes:
        """A chat completion."""
        choices = [
            {
                "index": answer.index, "finish_reason": answer.finish_reason, "logprobs": None,
                "message": _message(answer), "alpha_umi": extension(answer),
            }
            for answer in answers
        ]  # fmt: skip
        body = self._body("chat.completion", choices) | {"usage": usage(answers), "alpha_umi": extension(answers[0])}
        return as_json(ChatCompletion.model_validate(body).model_dump(mode="json", exclude_unset=True))

    def opening(self, index: int) -> bytes:
        """The first chunk of an answer."""
        return self._chunk(index, {"role": "assistant", "content": None})

    def delta(self, delta: Delta) -> bytes:
        """A chunk of text."""
        return self._chunk(delta.index, {delta.field: delta.text})

    def closing(self, answer: Answer) -> Iterator[bytes]:
        """The calls of an answer, in chunks, and its end."""
        for number, call in enumerate(answer.calls):
            named = {"index": number, "id": call.id, "type": "function"}
            yield self._call(answer.index, {**named, "function": {"name": call.name, "arguments": ""}})
            for at in range(0, len(call.arguments), _PIECE):
                piece = {"arguments": call.arguments[at : at + _PIECE]}
                yield self._call(answer.index, {"index": number, "function": piece})
        yield self._chunk(answer.index, {}, answer)

    def usage(self, answers: Sequence[Answer]) -> bytes:
        """The last chunk of a stream whose client wants to know."""
        return self._event(self._body("chat.completion.chunk", []) | {"usage": usage(answers)})

    def _call(self, index: int, call: dict[str, Any]) -> bytes:
        return self._chunk(index, {"tool_calls": [call]})

    def _chunk(self, index: int, delta: dict[str, Any], answer: Answer | None = None) -> bytes:
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
        if answer is None:
            return self._event(self._body("chat.completion.chunk", [choice]))
        choice |= {"finish_reason": answer.finish_reason, "alpha_umi": extension(answer)}
        return self._event(self._body("chat.completion.chunk", [choice]) | {"alpha_umi": extension(answer)})

    def _event(self, body: dict[str, Any]) -> bytes:
        chunk = ChatCompletionChunk.model_validate(body)
        return event(chunk.model_dump(mode="json", exclude_unset=True))

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices,
            "system_fingerprint": self.fingerprint,
        }  # fmt: skip


DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + as_json(value) + b"\n\n"


def failure(error: ApiError) -> bytes:
    """The event of a stream that fails in the middle."""
    return event(error.body())


def usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """The tokens of a request; the conversation counts once, however many answers it has."""
    prompt, written = answers[0].prompt_tokens, sum(answer.generated_tokens for answer in answers)
    counted = CompletionUsage.model_validate({
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": answers[0].cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": sum(answer.reasoning_tokens for answer in answers)},
    })  # fmt: skip
    return counted.model_dump(mode="json", exclude_unset=True)


def extension(answer: Answer) -> dict[str, Any]:
    """What OpenAI's objects have no place for."""
    out: dict[str, Any] = {"stop_reason": answer.stop_reason.value, "prefill_tokens": answer.prefill_tokens}
    if answer.ended is not None:
        out["cut"] = answer.ended.value
    if answer.trace is not None:
        out["trace"] = answer.trace
    return out


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": answer.refusal}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]
    return message
