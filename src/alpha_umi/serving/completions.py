"""The route that answers: a request becomes jobs, their news become a response or a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from alpha_umi.serving.asked import Abilities
from alpha_umi.serving.channel import Channel, Mailbox
from alpha_umi.serving.errors import ApiError
from alpha_umi.serving.job import Answer, Delta, Job
from alpha_umi.serving.limits import ServerLimits
from alpha_umi.serving.metrics import Metrics
from alpha_umi.serving.reading import read_request
from alpha_umi.serving.responses import DONE, Envelope, failure
from alpha_umi.serving.security import read_body
from alpha_umi.serving.worker import Worker
from alpha_umi.tools import ToolSource

_CLIENT_LEFT = 499


class Completions:
    """Answers chat completion requests.

    Args:
        worker: Does the work.
        metrics: Is told of every request.
        abilities: What can be asked for.
        limits: Of a request.
        fingerprint: Of what makes the tokens.

    Attributes:
        source: The server's own tools, once they are open.
    """

    def __init__(
        self, worker: Worker, metrics: Metrics, abilities: Abilities, limits: ServerLimits, fingerprint: str
    ) -> None:
        self._worker, self._metrics, self._abilities, self._limits = worker, metrics, abilities, limits
        self._fingerprint = fingerprint
        self._mailbox: Mailbox | None = None
        self.source: ToolSource | None = None

    async def complete(self, request: Request) -> Response:
        """A chat completion: the planner's decision and what follows, up to an answer or a call for the client."""
        begun = time.monotonic()
        try:
            response = await self._complete(request, begun)
        except ApiError as error:
            self._count(error.status, begun)
            raise
        except Exception:
            self._count(500, begun)
            raise
        if not isinstance(response, StreamingResponse):
            self._count(response.status_code, begun)
        return response

    def _count(self, status: int, begun: float) -> None:
        self._metrics.count("requests_total", labels=f'status="{status}"')
        self._metrics.observe("request_seconds", time.monotonic() - begun)

    async def _complete(self, request: Request, begun: float) -> Response:
        body = await read_body(request, self._limits.body_bytes)
        asked = await asyncio.to_thread(lambda: read_request(_json(body), self._abilities, self._limits))
        if self._mailbox is None:
            self._mailbox = Mailbox(asyncio.get_running_loop())
        channel = Channel(self._mailbox)
        jobs = [Job(asked, index, channel.put, self.source) for index in range(asked.choices)]
        self._worker.submit(jobs)
        watch = asyncio.ensure_future(self._watch(request, channel, jobs))
        envelope = Envelope(self._abilities.model, self._fingerprint)
        streams = False
        try:
            await channel.begun(len(jobs))
            self._metrics.observe("first_event_seconds", time.monotonic() - begun)
            if not asked.stream:
                return Response(envelope.whole(await channel.answers(len(jobs))), media_type="application/json")
            streams = True
        except BaseException:
            self._worker.cancel(jobs)
            raise
        finally:
            if not streams:
                watch.cancel()
        parts = _parts(channel, jobs, envelope, asked.usage)
        return StreamingResponse(
            self._watched(parts, jobs, watch, begun), media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )  # fmt: skip

    async def _watch(self, request: Request, channel: Channel, jobs: Sequence[Job]) -> None:
        """Drops the jobs when the client leaves."""
        with suppress(RuntimeError):
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self._worker.cancel(jobs)
            channel.end(ApiError(_CLIENT_LEFT, "the client left", "client_left"))

    async def _watched(
        self, parts: AsyncIterator[bytes], jobs: Sequence[Job], watch: asyncio.Future[None], begun: float
    ) -> AsyncIterator[bytes]:
        """The stream; however it ends, nothing goes on without it."""
        status = _CLIENT_LEFT
        try:
            async for part in parts:
                yield part
            status = 200
        except ApiError as error:
            status = error.status
            yield failure(error)
        finally:
            watch.cancel()
            if status != 200:
                self._worker.cancel(jobs)
            self._count(status, begun)


async def _parts(channel: Channel, jobs: Sequence[Job], envelope: Envelope, usage: bool) -> AsyncIterator[bytes]:
    """Every answer's beginning, its parts as they come, and the end."""
    answers: dict[int, Answer] = {}
    for job in jobs:
        yield envelope.opening(job.index)
    while len(answers) < len(jobs):
        news = await channel.get()
        if isinstance(news, Delta):
            yield envelope.delta(news)
            continue
        answers[news.index] = news
        for part in envelope.closing(news):
            yield part
    if usage:
        yield envelope.usage([answers[job.index] for job in jobs])
    yield DONE


def _json(body: bytes) -> Any:
    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is no JSON")

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"the body is no JSON: {reason}", "invalid_json") from error
