"""What the server adds to the engine's own time, with many streams at once.

    python benchmarks/serve_load.py [--streams 200] [--requests 4] [--interval 0.05] [--json OUT]

The engine computes nothing: the tokens of a span come ``interval`` seconds apart, whatever else is generated. So the
engine's own time for a response is its tokens times the interval, and the **overhead** is what the client waits beyond
that, from sending the request to the end of the stream: connecting, reading and rendering the request, queueing, the
turns between the roles, checking, writing and sending the events, and the client's own reading. The server is a process
of its own, the clients are another. Every stream makes its requests one after another (a question, then the same
with the tool's reply); they begin spread over the time of one, and the first request of each is not counted.

At the end, streams are left in the middle, and the time until the server has stopped generating is taken; then SIGTERM
ends the server, whose exit code is given.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from alpha_umi.engines import Ending, Generation, Request, Sampling
from alpha_umi.engines.base import Uncached
from alpha_umi.transcript import Renderer, Voice

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION = {"role": "user", "content": "What is the weather in Paris, and what should I take with me?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
SEEN = [
    QUESTION,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
]
RATIONALE = "The user wants to know the weather in Paris before going out, and what to take along. "
ANSWER = "It rains in Paris today, and it will go on until the evening: take an umbrella and good shoes. " * 2
POLL = 0.0005


def said(voice: Voice, transcript: str) -> str:
    """What the agent of this benchmark writes."""
    if voice == "caller":
        return '{"name": "get_weather", "arguments": {"city": "Paris"}}'
    seen = "rain" in transcript
    return ANSWER if voice == "summarizer" else f"{RATIONALE}\nNext: {'Summarizer' if seen else 'Caller'}"


@dataclass
class _Span:
    request: Request
    ids: tuple[int, ...]
    begun: float
    told: int = 0


class PacedEngine(Uncached):
    """Writes every span at one pace, as if there were a machine for each.

    Args:
        renderer: Of the transcripts.
        interval: Seconds between two tokens of a span.
    """

    context = 8192

    def __init__(self, renderer: Renderer, interval: float) -> None:
        self.renderer, self._interval = renderer, interval
        self._spans: dict[int, _Span] = {}
        self._due: list[tuple[float, int]] = []
        self._tickets = 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        """All of them, at the pace of the longest."""
        tickets, made = self.begin(requests, sampling), dict[int, Generation]()
        while len(made) < len(tickets):
            made |= self.advance()
        return [made[ticket] for ticket in tickets]

    def begin(self, requests: Sequence[Request], sampling: Sampling) -> list[int]:
        """Starts their clocks."""
        tickets = list(range(self._tickets, self._tickets + len(requests)))
        self._tickets += len(requests)
        for ticket, request in zip(tickets, requests, strict=True):
            text = said(request.voice, self.renderer.decode(request.ids))
            ids = (*self.renderer.encode(text), self.renderer.markers.end)
            self._spans[ticket] = span = _Span(request, ids, time.monotonic())
            heapq.heappush(self._due, (span.begun + self._interval, ticket))
        return tickets

    def advance(self, interrupt: Callable[[], bool] | None = None) -> dict[int, Generation]:
        """Tells the tokens whose time has come, until some span is complete."""
        while self._spans:
            made = dict[int, Generation]()
            while self._due and self._due[0][0] <= time.monotonic():
                _, ticket = heapq.heappop(self._due)
                span = self._spans.get(ticket)
                if span is not None and self._tell(ticket, span):
                    made[ticket] = Generation(span.ids, Ending.END)
                    del self._spans[ticket]
            if made or (interrupt is not None and interrupt()):
                return made
            time.sleep(POLL)
        return {}

    def _tell(self, ticket: int, span: _Span) -> bool:
        """Tells the token that is due; says whether that was the last."""
        if span.request.listener is not None:
            span.request.listener(span.ids[span.told : span.told + 1])
        span.told += 1
        heapq.heappush(self._due, (span.begun + (span.told + 1) * self._interval, ticket))
        return span.told == len(span.ids)

    def forget(self, sessions: Iterable[int]) -> None:
        """Stops their clocks."""
        gone = set(sessions)
        self._spans = {ticket: span for ticket, span in self._spans.items() if span.request.session not in gone}


def serve_paced(interval: float, streams: int, ready: Connection) -> None:
    """The server's process, until SIGTERM."""
    from alpha_umi.run_directory import load_tokenizer, shipped_base
    from alpha_umi.serving.app import create_app
    from alpha_umi.serving.limits import ServerLimits
    from alpha_umi.serving.server import bind, serve

    engine = PacedEngine(Renderer(load_tokenizer(str(shipped_base()))), interval)
    with bind("127.0.0.1", 0) as bound:
        app = create_app(engine, "umi", limits=ServerLimits(concurrency=streams, queue=streams))
        serve(app, bound, lambda: ready.send(bound.getsockname()[1]))


# ---- clients ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clients:
    """Where they ask, and how the engine paces what they are told."""

    port: int
    interval: float

    async def send(self, messages: Sequence[Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Asks for a stream."""
        wanted = {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps({"model": "umi", "messages": messages, "tools": [WEATHER], **wanted}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader, writer

    async def overhead(self, messages: Sequence[Any]) -> float:
        """Seconds that a response takes beyond the engine's own.

        Raises:
            ValueError: It is not the whole stream that was to come.
        """
        begun = time.monotonic()
        reader, writer = await self.send(messages)
        data = await reader.read(-1)
        elapsed = time.monotonic() - begun
        writer.close()
        events = [line.removeprefix(b"data: ") for line in data.splitlines() if line.startswith(b"data: ")]
        if not data.startswith(b"HTTP/1.1 200") or events[-1] != b"[DONE]":
            raise ValueError(data[:200].decode("utf-8", "replace"))
        return elapsed - json.loads(events[-2])["usage"]["completion_tokens"] * self.interval

    async def gauge(self, name: str) -> int:
        """What the server says of itself."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        lines = (await reader.read(-1)).decode().splitlines()
        writer.close()
        return next(int(line.rpartition(" ")[2]) for line in lines if line.startswith(f"umi_{name} "))


async def load(clients: Clients, streams: int, requests: int) -> tuple[list[float], list[str]]:
    """Overheads in seconds, and errors."""
    overheads, errors = list[float](), list[str]()

    async def stream(number: int) -> None:
        await asyncio.sleep(number / streams * len(ANSWER.split()) * clients.interval)
        for turn in range(requests + 1):
            try:
                overhead = await clients.overhead(SEEN if turn % 2 else [QUESTION])
            except (OSError, ValueError, IndexError) as error:
                errors.append(f"{type(error).__name__}: {error}")
                continue
            if turn:
                overheads.append(overhead)

    await asyncio.gather(*map(stream, range(streams)))
    return overheads, errors


async def leave(clients: Clients, streams: int) -> float:
    """Seconds from when so many clients leave in the middle of a stream until nothing is generated."""
    opened = await asyncio.gather(*(clients.send([QUESTION]) for _ in range(streams)))
    await asyncio.gather(*(reader.readuntil(b"reasoning_content") for reader, _ in opened))
    for _, writer in opened:
        writer.transport.abort()
    begun = time.monotonic()
    while await clients.gauge("running"):
        pass
    return time.monotonic() - begun


def main() -> None:
    """Runs the server, the load, and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--requests", type=int, default=4, help="of each stream, after its first")
    parser.add_argument("--interval", type=float, default=0.05, help="seconds between two tokens of a stream")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    server = spawn.Process(target=serve_paced, args=(given.interval, given.streams, theirs))
    server.start()
    clients = Clients(ours.recv(), given.interval)
    begun = time.monotonic()
    overheads, errors = asyncio.run(load(clients, given.streams, given.requests))
    seconds = time.monotonic() - begun
    left = asyncio.run(leave(clients, given.streams))
    server.terminate()
    server.join(60)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = {
        "machine": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0)),
        "streams": given.streams, "interval_s": given.interval, "seconds": round(seconds, 1),
        "responses": len(overheads), "errors": len(errors), "first_errors": errors[:3],
        "overhead_ms": {name: round(at(overheads, share) * 1e3, 1) for name, share in SHARES.items()},
        "stopped_after_leaving_s": round(left, 3), "server_cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "exit_code_after_sigterm": server.exitcode,
    }  # fmt: skip
    print(json.dumps(report, indent=2))  # noqa: T201
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


def at(values: Sequence[float], share: float) -> float:
    """The value that such a share does not exceed; 0 of none."""
    return sorted(values)[max(int(len(values) * share + 0.999999) - 1, 0)] if values else 0.0


if __name__ == "__main__":
    main()
