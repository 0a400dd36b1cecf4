"""A real server on a loopback port, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from openai import OpenAI

from alpha_umi.engines import Engine
from alpha_umi.engines.local import LocalEngine
from alpha_umi.engines.scripted import Script, ScriptedEngine
from alpha_umi.serving.app import create_app
from alpha_umi.serving.server import base_url, bind
from alpha_umi.transcript import ROLES, Renderer, Voice
from tests.engines.test_local_engine import make
from tests.tokenizers import nano

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Says what the weather is.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
DAY = {
    "type": "function",
    "function": {
        "name": "pick_day",
        "parameters": {"type": "object", "properties": {"day": {"enum": ["mon", "tue"]}}, "required": ["day"]},
    },
}
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]


@dataclass
class Served:
    """A server that runs.

    Attributes:
        url: Its base_url.
        server: Uvicorn's.
    """

    url: str
    server: uvicorn.Server
    thread: threading.Thread

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0)

    def post(self, body: Any, **options: Any) -> httpx2.Response:
        return httpx2.post(f"{self.url}/chat/completions", json=body, timeout=60, **options)

    def metric(self, name: str) -> float:
        lines = httpx2.get(f"{self.root}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"umi_{name}"))


@contextmanager
def running(app: FastAPI) -> Iterator[Served]:
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    with bind("127.0.0.1", 0) as bound:
        server = Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=30))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            assert ready.wait(60)
            yield Served(base_url(bound), server, thread)
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def serving(engine: Engine, name: str = "umi", **options: Any) -> Iterator[Served]:
    with running(create_app(engine, name, **options)) as served:
        yield served


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    return Renderer(nano())


ScriptedOf = Callable[..., ScriptedEngine]


@pytest.fixture(scope="session")
def scripted(renderer: Renderer) -> ScriptedOf:
    def build(script: Script | Mapping[Voice, Sequence[str]], **options: Any) -> ScriptedEngine:
        return ScriptedEngine(script, renderer, **options)

    return build


def weather_script(session: int, voice: Voice, text: str) -> str:
    """Calls the tool for the city that was asked for last, then says what came of it."""
    asked, _, rest = text.rpartition("<|user|>")[2].partition("<|end|>")
    city = asked.rpartition(" in ")[2].rstrip("?")
    if voice == "caller":
        return f'{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}'
    seen = rest.rpartition("<|tool|>")[2].partition("<|end|>")[0] if "<|tool|>" in rest else ""
    if voice == "planner":
        return f"{seen} is known.\nNext: Summarizer" if seen else f"I need {city}.\nNext: Caller"
    return f"In {city}: {seen}."


@pytest.fixture(scope="session")
def local(renderer: Renderer) -> Callable[..., LocalEngine]:
    """An engine of one tiny random model that plays all roles, held to grammars."""

    def build(**options: Any) -> LocalEngine:
        model = make("llama", renderer, max_position_embeddings=8192)
        return LocalEngine(dict.fromkeys(ROLES, model), renderer, **options)

    return build
