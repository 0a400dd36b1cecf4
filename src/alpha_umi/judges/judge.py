"""Who judges: an OpenAI-compatible endpoint, or a function of this process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from alpha_umi.judges.config import JudgeFile
from alpha_umi.judges.questions import Question

if TYPE_CHECKING:
    from alpha_umi.engines.openai_client import Client, Reply

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Spoken:
    """What a judge said to one question.

    Attributes:
        arguments: Of the function it called; None if it called none, or wrote no JSON object.
        prompt_tokens: As its server counts them; 0 where it doesn't.
        completion_tokens: Likewise.
    """

    arguments: Arguments | None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Judge(Protocol):
    """Answers questions."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def fingerprint(self) -> str:
        """What of it decides its answers; replies are kept under it."""
        ...

    async def ask(self, question: Question, seed: int) -> Spoken:
        """Answers one question; another seed may answer otherwise."""
        ...

    async def aclose(self) -> None:
        """Lets go of connections."""
        ...


@dataclass
class FunctionJudge:
    """A function in place of a model: rules of one's own, or a judge of known bias.

    Attributes:
        name: For people, and what its replies are kept under.
        answer: Given the question and the seed, the arguments it calls with, or None.
    """

    name: str
    answer: Callable[[Question, int], Arguments | None]

    @property
    def fingerprint(self) -> str:
        """Its name."""
        return self.name

    async def ask(self, question: Question, seed: int) -> Spoken:
        """Calls the function."""
        return Spoken(self.answer(question, seed))

    async def aclose(self) -> None:
        """Nothing is held."""


class EndpointJudge:
    """A model that is made to call the function.

    A reply that refuses (too long for the context, a content filter) is one without arguments.

    Raises:
        UserError: The `openai` package is missing, or the key's variable isn't set; later: the server fails.
    """

    def __init__(self, file: JudgeFile) -> None:
        self._file = file
        self._client: Client | None = None
        self.name = f"{file.judge.model} at {file.judge.base_url}"
        self.fingerprint = hashlib.sha256(file.deciding.encode()).hexdigest()[:16]

    async def ask(self, question: Question, seed: int) -> Spoken:
        """Sends one request; the endpoint's own retries and its ``concurrency`` hold."""
        from alpha_umi.engines.openai_client import Client, Refused

        if self._client is None:
            self._client = Client(self._file.judge, "chat")
        reply = await self._client.ask(self._body(question, seed))
        return Spoken(None) if isinstance(reply, Refused) else _spoken(reply)

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _body(self, question: Question, seed: int) -> dict[str, Any]:
        endpoint = self._file.judge
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": question.prompt}],
            "tools": [{"type": "function", "function": dict(question.schema)}],
            "tool_choice": {"type": "function", "function": {"name": question.name}},
            endpoint.max_tokens_field: endpoint.max_tokens or self._file.max_tokens,
        }
        if endpoint.sampling:
            body |= {"temperature": self._file.temperature, "seed": seed}
        return body | ({"extra_body": dict(endpoint.extra_body)} if endpoint.extra_body else {})


def run_with(judge: Judge, work: Callable[[], Any]) -> Any:
    """Runs asynchronous work from a program without an event loop, and closes the judge after it."""

    async def whole() -> Any:
        try:
            return await work()
        finally:
            await judge.aclose()

    return asyncio.run(whole())


def _spoken(reply: Reply) -> Spoken:
    return Spoken(_arguments(reply.choice), reply.prompt_tokens, reply.completion_tokens)


def _arguments(choice: Mapping[str, Any]) -> Arguments | None:
    """The first call's arguments; of servers that know no forced calls, a JSON object as the whole content."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return None
    calls = message.get("tool_calls")
    text: Any = message.get("content")
    if isinstance(calls, list) and calls and isinstance(calls[0], Mapping):
        function = calls[0].get("function")
        text = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
