"""Whatever is sent, the answer is a completion or an error that is the sender's, and it comes soon."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.transcript import Renderer
from tests.serving.attacks import ATTACKS, Attack, asked, body
from tests.serving.conftest import Served, serving, weather_script

SECONDS = 5
MANY = 10_000


class Held(ScriptedEngine):
    """Says that it holds spans to grammars, so that the server makes and checks all of them."""

    constrained = True


@pytest.fixture(scope="module")
def served(renderer: Renderer) -> Iterator[Served]:
    with serving(Held(weather_script, renderer)) as served:
        yield served


@dataclass
class Outcome:
    """What came of many requests."""

    statuses: Counter[int] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")


async def status_of(url: str, content: bytes) -> int:
    """Of one response, which has to be well-formed: JSON, or a stream that ends."""
    host, _, port = url.removeprefix("http://").partition("/")[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    try:
        head, _, answer = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    if b"text/event-stream" in head:
        assert b"data: [DONE]" in answer
    elif b"chunked" not in head:
        json.loads(answer)
    return int(head.split(b" ", 2)[1])


async def attack(url: str, attacks: list[tuple[str, Attack]], seed: int) -> Outcome:
    """Sends each attack, a few at one time."""
    outcome, gate = Outcome(), asyncio.Semaphore(4)

    async def one(number: int, name: str, make: Attack) -> None:
        content = body(make, random.Random(seed + number))
        async with gate:
            begun = time.monotonic()
            try:
                status = await asyncio.wait_for(status_of(url, content), 60)
            except Exception as error:
                outcome.failed.append(f"{name} #{number}: {type(error).__name__}: {error}")
                return
            outcome.slowest = max(outcome.slowest, (time.monotonic() - begun, name))
        outcome.statuses[status] += 1
        if status >= 500:
            outcome.failed.append(f"{name} #{number}: {status}")

    for at in range(0, len(attacks), 100):
        part = attacks[at : at + 100]
        await asyncio.gather(*(one(at + n, name, make) for n, (name, make) in enumerate(part)))
    return outcome


def test_every_attack_is_answered_or_refused(served: Served):
    outcome = asyncio.run(attack(served.url, list(ATTACKS.items()), seed=0))
    assert outcome.failed == []
    assert set(outcome.statuses) <= {200, 400, 404, 413}
    assert served.post(asked()).status_code == 200
    assert served.metric("running") == served.metric("waiting") == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_attacks(served: Served, capsys: pytest.CaptureFixture[str]):
    draw = random.Random(0)
    outcome = asyncio.run(attack(served.url, draw.choices(list(ATTACKS.items()), k=MANY), seed=1))
    with capsys.disabled():
        sys.stdout.write(f"\n{dict(outcome.statuses)}, slowest {outcome.slowest[0]:.2f} s ({outcome.slowest[1]})\n")
    assert outcome.failed == []
    assert outcome.slowest[0] < SECONDS
    assert served.metric("running") == served.metric("waiting") == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_schemathesis_finds_no_server_error(served: Served, tmp_path: Path):
    tool = os.environ.get("SCHEMATHESIS") or shutil.which("schemathesis")
    if tool is None:
        pytest.skip("schemathesis is not installed; put it on the PATH or name it in SCHEMATHESIS")
    examples = os.environ.get("SCHEMATHESIS_EXAMPLES", str(MANY))
    command = [tool, "run", f"{served.root}/openapi.json", "--max-examples", examples, "--seed", "1", "--no-shrink"]
    command += ["--request-timeout", str(SECONDS), "--phases", "coverage,fuzzing", "--continue-on-failure"]
    command += ["--checks", "not_a_server_error", "--max-response-time", str(SECONDS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert served.metric("running") == served.metric("waiting") == 0
