"""An OpenAI-compatible provider on a loopback port whose every answer a test decides."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

Body = dict[str, Any]
Answer = Callable[[Body], "Response | Body"]


@dataclass
class Provider:
    """What a provider was asked.

    Attributes:
        base_url: Where it is.
        bodies: Of every request, in order.
        headers: Likewise.
        most: Requests that were answered at one time, at most.
    """

    base_url: str = ""
    bodies: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def counted(self, request: Request, body: Body) -> Iterator[None]:
        with self._lock:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


@contextlib.contextmanager
def providing(answer: Answer) -> Iterator[Provider]:
    """Serves until the block ends; ``answer`` may block, each request has a thread of its own."""
    provider = Provider()
    app = FastAPI()

    def handle(request: Request, body: Body) -> Response:
        with provider.counted(request, body):
            made = answer(body)
        return made if isinstance(made, Response) else JSONResponse(made)

    app.post("/v1/chat/completions", response_model=None)(handle)
    app.post("/v1/completions", response_model=None)(handle)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield provider
        finally:
            server.should_exit = True
            thread.join()


def chat(content: Any = None, *calls: tuple[str, Any], finish: str | None = None, **more: Any) -> Body:
    """A chat completion; more fields of its message are given by name."""
    message: Body = {"role": "assistant", "content": content, **more}
    if calls:
        message["tool_calls"] = [
            {"id": f"call_x{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(calls)
        ]
    reason = finish or ("tool_calls" if calls else "stop")
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    cached = {"prompt_tokens_details": {"cached_tokens": 30}}
    usage = {"prompt_tokens": 50, "completion_tokens": 7, "total_tokens": 57, **cached}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage,
    }  # fmt: skip


def completion(text: str, ids: list[int] | None, finish: str, **more: Any) -> Body:
    """A text completion, as vLLM gives it if it was asked for token ids."""
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None, "token_ids": ids, **more}
    usage = {"prompt_tokens": 9, "completion_tokens": len(ids or ()), "total_tokens": 9 + len(ids or ())}
    return {"id": "c", "object": "text_completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def failure(status: int, message: str, code: str | None = None, **headers: str) -> Response:
    """An error as OpenAI words it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status, {name.replace("_", "-"): value for name, value in headers.items()})
