"""What a client is told went wrong, in the shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LONGEST = 500


@dataclass
class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: Of HTTP.
        message: What was given, what is allowed.
        code: A name that programs can tell apart.
        param: The parameter it is about, if it is about one.
        type: The kind of error, by OpenAI's names; None takes the one that goes with the status.
        headers: Of the response.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = self.type or ("server_error" if self.status >= 500 else "invalid_request_error")
        message = self.message if len(self.message) <= _LONGEST else self.message[:_LONGEST] + "..."
        param = None if self.param is None else self.param[:100]
        return {"error": {"message": message, "type": kind, "param": param, "code": self.code}}


def invalid(param: str, message: str, code: str | None = "invalid_value") -> ApiError:
    """A parameter that can't be taken."""
    return ApiError(400, f"{param}: {message}", code, param)


def unsupported(param: str, message: str) -> ApiError:
    """A parameter that would change the answer, and that this server doesn't know."""
    return invalid(param, message, "unsupported_parameter")


def busy(retry_after: int) -> ApiError:
    """No room in the queue."""
    return ApiError(
        429, "the queue is full; try again later", "queue_full", None, "rate_limit_error",
        {"Retry-After": str(retry_after)},
    )  # fmt: skip


def context_too_long(tokens: int, context: int) -> ApiError:
    """The conversation leaves no room for an answer."""
    message = f"the conversation has {tokens} tokens, and the model's context is {context}; send fewer or shorter ones"
    return ApiError(400, message, "context_length_exceeded", "messages")


def internal() -> ApiError:
    """A mistake of the server; what it was is in its log alone."""
    return ApiError(500, "the server made a mistake; its log says more", "internal_error")


def closing() -> ApiError:
    """The server is being stopped."""
    return ApiError(503, "the server is being stopped", "shutting_down")
