"""A proxy that runs, in a thread of the test's process, before an upstream that is real too."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from openai import AsyncOpenAI, OpenAI

from alpha_umi.proxy.app import create_proxy
from alpha_umi.proxy.limits import ProxyLimits
from alpha_umi.proxy.recorder import Recorder, Tally
from alpha_umi.proxy.server import address, configuration
from alpha_umi.serving.server import bind
from tests.serving.conftest import renderer, scripted

__all__ = ["renderer", "scripted"]


@dataclass
class Proxied:
    """A proxy.

    Attributes:
        url: Its base_url.
        folder: Of its records.
    """

    url: str
    folder: Path
    recorder: Recorder

    @property
    def root(self) -> str:
        return str(httpx2.URL(self.url).copy_with(raw_path=b"/")).rstrip("/")

    @property
    def tally(self) -> Tally:
        return self.recorder.tally

    def client(self, key: str = "none", **options: Any) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, **options)

    def asynchronous(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key="none", max_retries=0)


@contextmanager
def proxied(
    upstream: str,
    folder: Path,
    *,
    sample: float = 1.0,
    limits: ProxyLimits | None = None,
    listener: Callable[[Any], None] | None = None,
    **keys: str | None,
) -> Iterator[Proxied]:
    """A proxy; when the block has ended, all that it recorded is there."""
    limits = limits or ProxyLimits()
    recorder = Recorder(folder, sample, limits, listener)
    with bind("127.0.0.1", 0) as bound:
        server = uvicorn.Server(configuration(create_proxy(upstream, recorder, limits=limits, **keys), limits))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield Proxied(address(bound, upstream), folder, recorder)
        finally:
            server.should_exit = True
            thread.join(60)


def records(folder: Path) -> list[dict[str, Any]]:
    """What was recorded, in order of time."""
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda record: record["time"])
