"""A model in an API's place: it is given the API's documentation and recorded replies, and writes one more.

The examples come from what is published and never from what it answered before, so that an answer doesn't depend on
which calls came first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from alpha_umi.engines.openai_config import Endpoint, load_openai_run
from alpha_umi.errors import UserError
from alpha_umi.worlds.protocol import ApiCall, ApiReply, Failure

if TYPE_CHECKING:
    from alpha_umi.engines.openai_client import Client

ATTEMPTS = 3
"""How often a call is put until its reply can be read, as in StableToolBench."""

_EXAMPLES, _EXAMPLES_LENGTH = 5, 2048
_MAX_TOKENS = 1024
_FENCES = ("```json", "```")
_SYSTEM = """\
You stand in for a web API. You are given its documentation, some calls with the replies that were recorded, and a call.
Write the reply that the API would give to this call, as one JSON object and nothing else:
{"error": "", "response": <the reply, any JSON value>}
Give full and plausible data that fits the arguments and has the form of the documentation and of the recorded replies;
where those are empty or failures, go by the documentation alone. Keep it below 200 words. Only where the documentation
says that such a call fails, put what the API would say of that into "error", and an empty text into "response"."""


class _Written(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    error: str = ""
    response: Any


@dataclass(frozen=True)
class Known:
    """What a simulator is told of an API.

    Attributes:
        document: Its documentation; None if there is none.
        examples: Recorded calls and replies.
    """

    document: Mapping[str, Any] | None
    examples: Sequence[tuple[ApiCall, ApiReply]] = ()


class Simulator(Protocol):
    """Answers in an API's place."""

    @property
    def name(self) -> str:
        """What its replies are recorded under."""
        ...

    async def answer(self, call: ApiCall, known: Known) -> ApiReply:
        """One reply; a failure to write one is a reply too.

        Raises:
            UserError: It can't be reached.
        """
        ...

    async def aclose(self) -> None:
        """Lets go of connections."""
        ...


class EndpointSimulator:
    """A model behind an OpenAI-compatible endpoint, at temperature 0.

    Raises:
        UserError: The `openai` package is missing, or the key's variable isn't set; later: the server fails.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client: Client | None = None
        self.name = endpoint.model

    async def answer(self, call: ApiCall, known: Known) -> ApiReply:
        """Asks until what was written can be read, at most `ATTEMPTS` times."""
        from alpha_umi.engines.openai_client import Client, Refused

        if self._client is None:
            self._client = Client(self._endpoint, "chat")
        for attempt in range(ATTEMPTS):
            said = await self._client.ask(self._body(call, known, attempt))
            if isinstance(said, Refused):
                return ApiReply.failed(Failure.REFUSED, f"the API gave no reply ({said.value})")
            reply = read_reply((said.choice.get("message") or {}).get("content"))
            if reply is not None:
                return reply
        return ApiReply.failed(Failure.UNREADABLE, "the API gave no reply that can be read")

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _body(self, call: ApiCall, known: Known, attempt: int) -> dict[str, Any]:
        endpoint = self._endpoint
        body: dict[str, Any] = {
            "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": prompt(call, known)}],
            endpoint.max_tokens_field: endpoint.max_tokens or _MAX_TOKENS,
        }
        if endpoint.sampling:
            body |= {"temperature": 0.0, "seed": attempt}
        return body | ({"extra_body": dict(endpoint.extra_body)} if endpoint.extra_body else {})


def load_simulator(path: Path) -> EndpointSimulator:
    """The simulator of an engine file with an ``agent`` (docs/engines.md).

    Raises:
        UserError: The file can't be read, or has no agent.
    """
    agent = load_openai_run(path).agent
    if agent is None:
        raise UserError(f"--simulator {path}: give an engine file with 'agent', the endpoint that simulates APIs")
    return EndpointSimulator(agent)


def prompt(call: ApiCall, known: Known) -> str:
    """What a simulator reads; equal for equal calls."""
    documentation = json.dumps(known.document or {"api": str(call.name)}, ensure_ascii=False)
    shown = "\n".join(_examples(known.examples)) or "none"
    return f"Documentation:\n{documentation}\n\nRecorded replies:\n{shown}\n\nCall:\n{call.canonical}"


def read_reply(text: Any) -> ApiReply | None:
    """What a simulator wrote, as a reply; None if it is none."""
    if not isinstance(text, str):
        return None
    text = text.strip()
    for fence in _FENCES:
        if text.startswith(fence) and text.endswith("```"):
            text = text.removeprefix(fence).removesuffix("```")
    try:
        written = _Written.model_validate(json.loads(text, parse_constant=_no_constant))
    except (ValueError, RecursionError, ValidationError):
        return None
    return ApiReply.told(written.error, written.response)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _examples(recorded: Sequence[tuple[ApiCall, ApiReply]]) -> Sequence[str]:
    """The first few, as many as are short enough together; of a first one that is too long, its beginning."""
    texts = [f"{call.canonical} -> {json.dumps(reply.body())}" for call, reply in recorded[:_EXAMPLES]]
    while len(texts) > 1 and sum(map(len, texts)) > _EXAMPLES_LENGTH:
        texts.pop()
    return [text[:_EXAMPLES_LENGTH] for text in texts]
