"""Models behind OpenAI-compatible endpoints: hosted ones, vLLM, llama.cpp's server, our own server.

Requests run side by side in an event loop of their own, at most so many an endpoint as its ``concurrency`` says, and
spans are handed out as they come (`alpha_umi.engines.stream.Continuous`). Requests that nobody wants any more are
cancelled, which closes their connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpha_umi.engines.base import Generation, Request, Sampling, Uncached
from alpha_umi.engines.openai_client import Client, Refused, Reply, Usage
from alpha_umi.engines.openai_config import OpenAIRun, Shots
from alpha_umi.engines.openai_dialects import NOTHING, ChatAgent, ChatRole, Dialect, TokenPrompt
from alpha_umi.errors import UserError
from alpha_umi.run_directory import BACKBONE, load_renderer, load_tokenizer, shipped_base
from alpha_umi.trajectory import Trajectory, read_jsonl
from alpha_umi.transcript import Renderer, Voice

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

_CONTEXT = 1 << 30  # of a transcript that no model reads
_OBSERVATION_TOKENS = 4096
_POLL = 0.02  # seconds between two looks at an interrupt


@dataclass(frozen=True)
class Remote:
    """An endpoint, and how it is spoken to."""

    client: Client
    dialect: Dialect


@dataclass(frozen=True)
class _Begun:
    """A request on its way; without ``answer``, one that there was no room for."""

    request: Request
    dialect: Dialect
    answer: Future[Reply | Refused] | None

    def generation(self) -> Generation:
        """Waits for it."""
        return NOTHING if self.answer is None else self.dialect.read(self.request, self.answer.result())


class OpenAIEngine(Uncached):
    """Speaks through endpoints; an `alpha_umi.engines.base.Engine` and `alpha_umi.engines.stream.Continuous`.

    Nothing is computed ahead or kept between requests; a server's own prefix cache may do that.

    Args:
        remotes: Who speaks where.
        renderer: Made the transcripts, or keeps the books of chats.
        context: Longest transcript and span together, in the renderer's tokens.
        portal: To the event loop that requests run in.

    Attributes:
        usage: What the servers have counted.
    """

    def __init__(
        self, remotes: Mapping[Voice, Remote], renderer: Renderer, context: int, portal: BlockingPortal
    ) -> None:
        self.renderer, self.context, self.usage = renderer, context, Usage()
        self._remotes, self._portal = dict(remotes), portal
        self._begun: dict[int, _Begun] = {}
        self._tickets = 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """Generates one span a request.

        Raises:
            UserError: A server failed, after its retries; the other requests are cancelled.
        """
        begun = [self._begin(request, sampling) for request in requests]
        try:
            return [one.generation() for one in begun]
        finally:
            _cancel(begun)

    def begin(self, requests: Sequence[Request], sampling: Sampling) -> list[int]:
        """Sends requests, for `advance`; returns a ticket each."""
        first, self._tickets = self._tickets, self._tickets + len(requests)
        for ticket, request in enumerate(requests, first):
            self._begun[ticket] = self._begin(request, sampling)
        return list(range(first, self._tickets))

    def advance(self, interrupt: Callable[[], bool] | None = None) -> dict[int, Generation]:
        """Waits until some of what was begun is answered, and returns that, by ticket.

        Nothing is returned if nothing is left, or if the interrupt, which is asked now and then, says to stop.

        Raises:
            UserError: As of `generate`.
        """
        answers = [one.answer for one in self._begun.values() if one.answer is not None]
        seconds = _POLL if interrupt is not None else None
        while answers and len(answers) == len(self._begun):
            if wait(answers, seconds, FIRST_COMPLETED).done or (interrupt is not None and interrupt()):
                break
        ready = [key for key, one in self._begun.items() if one.answer is None or one.answer.done()]
        return {ticket: self._begun.pop(ticket).generation() for ticket in ready}

    def forget(self, sessions: Iterable[int]) -> None:
        """Cancels what was begun for these sessions."""
        gone = set(sessions)
        dropped = [ticket for ticket, one in self._begun.items() if one.request.session in gone]
        _cancel([self._begun.pop(ticket) for ticket in dropped])

    def close(self) -> None:
        """Cancels what is on its way and closes the connections."""
        _cancel(self._begun.values())
        self._begun.clear()
        for remote in self._remotes.values():
            self._portal.call(remote.client.aclose)

    def _begin(self, request: Request, sampling: Sampling) -> _Begun:
        remote = self._remotes.get(request.voice)
        if remote is None:
            raise UserError(f"the engine file names nobody who speaks as {request.voice}")
        body = remote.dialect.body(request, sampling)
        if body is None:
            return _Begun(request, remote.dialect, None)
        return _Begun(request, remote.dialect, self._portal.start_task_soon(self._ask, remote.client, body))

    async def _ask(self, client: Client, body: Mapping[str, Any]) -> Reply | Refused:
        reply = await client.ask(body)
        if isinstance(reply, Reply):
            self.usage.add(reply)
        return reply


def _cancel(begun: Iterable[_Begun]) -> None:
    for one in begun:
        if one.answer is not None:
            one.answer.cancel()


@contextmanager
def open_openai(source: OpenAIRun, constrain: bool = True) -> Iterator[OpenAIEngine]:
    """Makes an engine of what an engine file says; no server is asked yet.

    Args:
        source: The file's contents.
        constrain: Send structured outputs where the file says so.

    Raises:
        UserError: The `openai` package or a key is missing, or a file that is named can't be used.
    """
    clients: dict[Voice, Client] = {
        voice: Client(endpoint, source.api(endpoint)) for voice, endpoint in source.endpoints.items()
    }
    renderer = _renderer(source)
    context = source.context or (_CONTEXT if source.run is None else _context(source.run))
    remotes: dict[Voice, Remote] = {
        voice: Remote(client, _dialect(voice, client, renderer, context, constrain))
        for voice, client in clients.items()
    }
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        engine = OpenAIEngine(remotes, renderer, context, portal)
        try:
            yield engine
        finally:
            engine.close()


def _dialect(voice: Voice, client: Client, renderer: Renderer, context: int, constrain: bool) -> Dialect:
    endpoint = client.endpoint
    if client.api == "completions":
        return TokenPrompt(endpoint, renderer, context, constrain)
    shots = _shots(endpoint.shots)
    if voice == "assistant":
        return ChatAgent(endpoint, renderer, shots)
    return ChatRole(voice, endpoint, renderer, shots)


def _shots(given: Shots | None) -> list[Trajectory]:
    if given is None:
        return []
    shots = list(islice(read_jsonl(given.file), given.count))
    if len(shots) < given.count:
        raise UserError(f"shots: {given.file} has {len(shots)} trajectories, {given.count} are wanted")
    return shots


def _renderer(source: OpenAIRun) -> Renderer:
    """The run's renderer, or one that only keeps the books."""
    voices = "single" if source.agent is not None else "roles"
    if source.run is None:
        return Renderer(load_tokenizer(str(shipped_base())), voices, _OBSERVATION_TOKENS)
    renderer = load_renderer(source.run, _OBSERVATION_TOKENS)
    if renderer.voices != voices:
        wanted = "'agent'" if renderer.voices == "single" else "'planner', 'caller' and 'summarizer'"
        raise UserError(f"{source.run} is a run of other voices: its engine file has {wanted}")
    return renderer


def _context(run: Path) -> int:
    """Positions of the run's backbone, as of the engine in process."""
    path = run / BACKBONE / "config.json"
    try:
        positions = json.loads(path.read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} can't be read; give the engine file a context") from error
    return positions if isinstance(positions, int) and positions > 0 else 1 << 20
