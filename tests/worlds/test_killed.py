"""kill -9 of the evaluation and of the server, the same again: the end is as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from alpha_umi.agent import ChosenStrategy, React
from alpha_umi.engines.base import Generation, Request, Sampling
from alpha_umi.engines.scripted import ScriptedEngine
from alpha_umi.transcript import Renderer
from alpha_umi.worlds import catalogue
from alpha_umi.worlds.client import WorldClient
from alpha_umi.worlds.episodes import EpisodeStore
from alpha_umi.worlds.running import Shard, run_world
from alpha_umi.worlds.server import create_world
from tests.tokenizers import nano
from tests.worlds.scripted import ROOM, queries_file, says, simulator, virtual_apis

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")

NEVER = 1 << 30


class Dying(ScriptedEngine):
    """Kills its process as it is asked for so many spans."""

    def __init__(self, spans: int) -> None:
        super().__init__(says, Renderer(nano()), context=1 << 20)
        self._left = spans

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
        self._left -= len(requests)
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(requests, sampling)


def forked(work: Callable[[], object]) -> int:
    """A process that does the work; nothing has to be imported again."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> int:
    """How a process ended: its exit code, or the signal with a minus."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve(app: Callable[[], FastAPI], listener: socket.socket) -> int:
    return forked(lambda: uvicorn.Server(uvicorn.Config(app(), log_level="critical")).run([listener]))


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """A socket that outlives the processes that answer there, so that nobody's connection is refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


class Setting:
    """Queries, a simulator and a server, in processes of their own."""

    def __init__(self, folder: Path, listeners: Sequence[tuple[socket.socket, str]], count: int) -> None:
        self.folder, self.queries = folder, queries_file(folder, count)
        (self._at_simulator, self._simulator_url), (self._at_server, self._server_url) = listeners
        self.simulator = serve(simulator, self._at_simulator)
        self.start()

    def start(self) -> None:
        url = f"{self._simulator_url}/v1"
        self.server = serve(
            lambda: create_world(virtual_apis(self.folder / "world.sqlite", url, self.queries)), self._at_server
        )

    def kill_server(self) -> None:
        os.kill(self.server, signal.SIGKILL)
        assert ended(self.server) == -signal.SIGKILL

    def stop(self) -> None:
        for pid in (self.server, self.simulator):
            os.kill(pid, signal.SIGKILL)
            ended(pid)

    def evaluate(self, folder: Path, spans: int = NEVER, shard: str = "1/1") -> int:
        """A process that evaluates, until it has written so many spans."""

        def work() -> None:
            world = catalogue.stabletoolbench([self.queries], WorldClient(self._server_url, retries=8))
            with EpisodeStore(folder, world.settings) as store:
                chosen = ChosenStrategy(React(), ROOM)
                run_world(Dying(spans), world, store, chosen, concurrency=4, shard=Shard.read(shard))

        return forked(work)


@pytest.fixture
def setting(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Setting]:
    """With so many queries as its parameter says."""
    with listening() as simulator, listening() as server:
        made = Setting(tmp_path, (simulator, server), request.param)
        yield made
        made.stop()


def exported(folder: Path) -> bytes:
    return (folder / "live-G1_made-episodes.jsonl").read_bytes()


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


@pytest.mark.parametrize("setting", [30], indirect=True)
def test_a_run_that_is_killed_goes_on_without_repeating_or_skipping(setting: Setting, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ended(setting.evaluate(whole)) == 0
    before: set[tuple[object, ...]] = set()
    for spans in (40, 55, 1):
        assert ended(setting.evaluate(killed, spans)) == -signal.SIGKILL
        finished = set(rows(killed / "episodes.sqlite", "episodes"))
        assert before <= finished and 0 < len(finished) < 30
        before = finished
    setting.kill_server()
    setting.start()
    assert ended(setting.evaluate(killed)) == 0
    assert exported(killed) == exported(whole)
    assert before <= set(rows(killed / "episodes.sqlite", "episodes"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("setting", [150], indirect=True)
def test_a_run_is_the_same_after_twenty_kills_at_random_moments(setting: Setting, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for _ in range(20):
        shard = chance.choice(("1/1", "1/2", "2/2"))
        pid = setting.evaluate(killed, shard=shard)
        time.sleep(chance.uniform(0.02, 0.8))
        if chance.random() < 0.3:
            setting.kill_server()
            setting.start()
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    assert ended(setting.evaluate(killed)) == 0
    recorded = rows(tmp_path / "world.sqlite", "api_replies")
    assert ended(setting.evaluate(whole)) == 0
    assert exported(killed) == exported(whole)
    assert rows(tmp_path / "world.sqlite", "api_replies") == recorded
