"""A small world with everything scripted: queries, an agent, a simulator behind real HTTP, and the server between."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from alpha_umi.agent import Limits
from alpha_umi.engines.openai_config import Endpoint
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.transcript import Renderer, Voice
from alpha_umi.worlds.documents import Documents
from alpha_umi.worlds.published_cache import PublishedCache
from alpha_umi.worlds.replies import ReplyStore
from alpha_umi.worlds.server import create_world
from alpha_umi.worlds.simulator import EndpointSimulator
from alpha_umi.worlds.virtual import VirtualApis
from tests.integration.provider import Body, chat
from tests.tokenizers import nano

CATEGORY = "News, Media"
ROOM = Limits(tokens=1 << 30, max_new_tokens=dict.fromkeys(("planner", "caller", "summarizer"), 4096))
"""The test's tokenizer has hardly more than letters."""
_SCHEMA = re.compile(r"^\{.*\}", re.MULTILINE)


def api(name: str, *required: str, collection: str = "Daily News") -> dict[str, Any]:
    parameters = [{"name": one, "type": "STRING", "description": "", "default": "x"} for one in required]
    return {
        "category_name": CATEGORY, "tool_name": collection, "api_name": name, "api_description": f"Gets {name}.",
        "required_parameters": parameters, "optional_parameters": [], "method": "GET",
        "template_response": {"of": "str"},
    }  # fmt: skip


def queries_file(folder: Path, count: int, name: str = "G1_made") -> Path:
    """So many queries, each with two APIs."""
    apis = [api("Top Stories", "topic"), api("id", "from")]
    content = [{"api_list": apis, "query": f"What is new about {n}?", "query_id": 100 + n} for n in range(count)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def simulated(body: Body) -> Body:
    """A reply that depends on everything the simulator was told."""
    said = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:12]
    return chat(json.dumps({"error": "", "response": {"of": said}}))


def simulator() -> FastAPI:
    """The same as an application, without the books that a `Provider` keeps."""
    app = FastAPI()
    app.post("/v1/chat/completions")(simulated)
    return app


def says(session: int, voice: Voice, text: str) -> str:
    """Calls its tools one to three times, by the session's number; then gives up, or answers from all it has read."""
    calls = text.count("Next: Caller")
    if voice == "planner":
        end = "Give up" if session % 5 == 4 else "Summarizer"
        return f"Step {calls}.\nNext: {'Caller' if calls < 1 + session % 3 else end}"
    if voice == "summarizer":
        return f"It is {hashlib.sha256(text.encode()).hexdigest()[:8]}."
    tools = [json.loads(line) for line in _SCHEMA.findall(text.partition("<|end|>")[0])]
    tool = tools[(session + calls) % len(tools)]
    arguments = {name: _value(schema, session) for name, schema in tool["parameters"]["properties"].items()}
    return json.dumps({"name": tool["name"], "arguments": arguments})


def _value(schema: dict[str, Any], session: int) -> Any:
    kinds = {"integer": session % 4, "number": 0.5, "boolean": True, "array": [], "object": {}}
    return kinds.get(schema.get("type", ""), f"about {session % 4}")


def agent() -> ScriptedEngine:
    return ScriptedEngine(says, Renderer(nano()), context=1 << 20)


def virtual_apis(
    replies: Path | None, simulator_url: str | None, *documents: Path, cache: Path | None = None
) -> VirtualApis:
    endpoint = None if simulator_url is None else Endpoint(base_url=simulator_url, model="simulator", max_retries=0)
    return VirtualApis(
        ReplyStore(replies), published=None if cache is None else PublishedCache(cache), documents=Documents(documents),
        simulator=None if endpoint is None else EndpointSimulator(endpoint),
    )  # fmt: skip


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serves an application on a loopback port until the block ends; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def serving_world(
    replies: Path | None, simulator_url: str | None, *documents: Path, cache: Path | None = None, key: str | None = None
) -> Iterator[str]:
    with serving(create_world(virtual_apis(replies, simulator_url, *documents, cache=cache), key)) as url:
        yield url
