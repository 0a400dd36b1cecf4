"""One endpoint, asked through the `openai` client: its retries, time-outs and rate limits, and our words for failures.

What the server or the network does wrong, after the client's retries, is a `UserError` that names the endpoint and
never the key. Two refusals are no failures of the run but of one request, and are returned: `Refused`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

from alpha_umi.engines.openai_config import Api, Endpoint
from alpha_umi.errors import UserError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError

_NO_KEY = "unused"  # anything else than None, or the client takes OPENAI_API_KEY, whosever endpoint this is
_LONGEST = 300
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum (context|model) length|(prompt|input) is too long", re.IGNORECASE
)
_HINTS = {
    401: "check its api_key_env", 403: "check its api_key_env", 404: "check base_url (it mostly ends in /v1) and model",
    429: "lower its concurrency, or wait",
}  # fmt: skip


class Refused(Enum):
    """Why a server would not answer a request that others like it may follow."""

    CONTEXT = "context"
    """The conversation is too long for the model."""
    FILTER = "filter"
    """The provider's content filter."""


@dataclass(frozen=True)
class Reply:
    """What a server answered.

    Attributes:
        choice: The first choice, as in the JSON.
        prompt_tokens: As the server counts them, those from its cache included; 0 where it doesn't say.
        cached_tokens: Of these, taken from its cache.
        completion_tokens: Written, hidden reasoning included.
    """

    choice: Mapping[str, Any]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        return str(self.choice.get("finish_reason"))


@dataclass
class Usage:
    """What an engine's endpoints have counted so far, in their models' own tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: Reply) -> None:
        """Counts a reply."""
        self.requests += 1
        self.prompt_tokens += reply.prompt_tokens
        self.cached_tokens += reply.cached_tokens
        self.completion_tokens += reply.completion_tokens


@dataclass
class Client:
    """Asks one endpoint; to be used in one event loop.

    Raises:
        UserError: The `openai` package is missing, or the variable with the key isn't set.
    """

    endpoint: Endpoint
    api: Api
    _key: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise UserError("--engine needs the openai package: pip install 'alpha-umi[serve]'") from error
        self._key = self.endpoint.key
        self._client = AsyncOpenAI(
            base_url=self.endpoint.base_url, api_key=self._key or _NO_KEY, timeout=self.endpoint.timeout,
            max_retries=self.endpoint.max_retries,
        )  # fmt: skip
        self._limit = asyncio.Semaphore(self.endpoint.concurrency)

    async def ask(self, body: Mapping[str, Any]) -> Reply | Refused:
        """Sends a request and waits for the answer; at most ``concurrency`` at one time.

        Raises:
            UserError: The server can't be reached, or gave no answer that can be read, after the retries.
        """
        from openai import APIConnectionError, APIError, APIStatusError

        async with self._limit:
            try:
                made = await self._create(body)
            except APIStatusError as error:
                refused = _refused(error)
                if refused is None:
                    self._fail(error)
                return refused
            except APIConnectionError as error:
                self._fail(error)
            except (APIError, ValueError, RecursionError) as error:
                raise UserError(f"{self}: the answer can't be read; {_HINTS[404]}") from error
        return self._reply(made)

    async def _create(self, body: Mapping[str, Any]) -> Any:
        arguments: Any = dict(body)
        made = self._client.chat.completions if self.api == "chat" else self._client.completions
        return await made.create(model=self.endpoint.model, **arguments)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    def __str__(self) -> str:
        """Where it is and what is asked there."""
        return f"{self.endpoint.base_url} ({self.endpoint.model})"

    def _reply(self, made: Any) -> Reply:
        content = made.to_dict(mode="python", warnings=False) if hasattr(made, "to_dict") else {}
        choices = content.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            told = content.get("error")
            said = f": {self._shown(_message(told))}" if told else ""
            raise UserError(f"{self}: the answer has no choices{said}; {_HINTS[404]}")
        usage = _mapping(content.get("usage"))
        cached = _count(_mapping(usage.get("prompt_tokens_details")), "cached_tokens")
        return Reply(choices[0], _count(usage, "prompt_tokens"), cached, _count(usage, "completion_tokens"))

    def _fail(self, error: APIError) -> NoReturn:
        from openai import APIStatusError, APITimeoutError

        attempts = self.endpoint.max_retries + 1
        tried = f"after {attempts} attempt{'s' if attempts > 1 else ''}"
        if isinstance(error, APIStatusError):
            hint = _HINTS.get(error.status_code)
            said = f"{self}: status {error.status_code}, {self._shown(_message(error.body) or error.message)}"
            raise UserError(f"{said}; {hint}" if hint else said) from None
        if isinstance(error, APITimeoutError):
            raise UserError(
                f"{self}: no answer within {self.endpoint.timeout:g} s {tried}; raise its timeout or see to the server"
            ) from None
        raise UserError(f"{self}: it can't be reached {tried}; start the server or check base_url") from None

    def _shown(self, text: str) -> str:
        """A server's words on one line, the key masked if it says it back."""
        line = " ".join(text.split())
        return (line.replace(self._key, "***") if self._key else line)[:_LONGEST]


def _refused(error: APIStatusError) -> Refused | None:
    if error.status_code not in (400, 413, 422):
        return None
    message = _message(error.body) or error.message
    if error.code in ("content_filter", "content_policy_violation"):
        return Refused.FILTER
    return Refused.CONTEXT if error.code == "context_length_exceeded" or _TOO_LONG.search(message) else None


def _message(body: object) -> str:
    """What an error's body says; servers differ in how deep it lies."""
    for key in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(key):
            body = body[key]
    return body if isinstance(body, str) else "" if body is None else str(body)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value > 0 else 0
