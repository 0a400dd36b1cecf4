"""`umi eval bfcl`: the environment, the server, the harness, the scores."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alpha_umi.errors import UserError
from alpha_umi.evaluation.bfcl.environment import VERSION, Environment, prepare, spread
from alpha_umi.evaluation.bfcl.scores import LIVE, MULTI_TURN, NON_LIVE, SINGLE_TURN, Results
from alpha_umi.evaluation.bfcl.served import Server, serving, stop
from alpha_umi.trajectory import write_json

GROUPS = {"non_live": NON_LIVE, "live": LIVE, "single_turn": SINGLE_TURN, "multi_turn": MULTI_TURN}
# all that the harness is given of this process's environment: no keys
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
_COUNTED = "requests.json"
_POLL_SECONDS = 2.0

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Endpoint:
    """What is called.

    Attributes:
        model: Its name there.
        base_url: Of an endpoint that runs already; None starts a server.
        api_key: For that endpoint.
        serve_options: Of `umi serve`, for the server.
    """

    model: str
    base_url: str | None = None
    api_key: str | None = None
    serve_options: tuple[str, ...] = ()


def chosen_categories(names: Sequence[str]) -> tuple[str, ...]:
    """The categories that are named, groups taken apart, each once.

    Raises:
        UserError: There is no such category or group, or it doesn't run offline.
    """
    known = {**GROUPS, **{name: (name,) for name in (*SINGLE_TURN, *MULTI_TURN)}}
    for name in names:
        if name not in known:
            raise UserError(
                f"--categories {name}: there is no such category that runs offline; there are {', '.join(known)}"
            )
    return tuple(dict.fromkeys(category for name in names for category in known[name]))


def evaluate_bfcl(
    endpoint: Endpoint,
    categories: Sequence[str],
    out: Path,
    env: Path,
    *,
    limit: int | None = None,
    threads: int = 8,
    on_progress: OnProgress = lambda name, done, total: None,
) -> dict[str, Any]:
    """Runs the harness and collects its scores; entries that have a result in ``out`` are not asked again.

    Args:
        endpoint: What is called.
        categories: From `chosen_categories`.
        out: The harness's results and scores, logs, and report.json.
        env: Where the environment is, or is made.
        limit: Entries of a category, evenly spread; None takes all.
        threads: Requests at one time.
        on_progress: Told of each category's name, entries with a result, and entries that are wanted.

    Returns:
        What report.json holds.

    Raises:
        UserError: What was given can't be run.
        RuntimeError: The server or the harness broke down.
    """
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(endpoint, prepare(env, out / "environment.log"), out.resolve(), threads, on_progress)
    wanted = {category: spread(run.environment.entries(category), limit) for category in categories}
    run.generate(wanted)
    run.score(categories)
    report = run.report(wanted)
    write_json(out / "report.json", report)
    return report


@dataclass(frozen=True)
class _Run:
    endpoint: Endpoint
    environment: Environment
    out: Path
    threads: int
    on_progress: OnProgress

    @property
    def results(self) -> Results:
        return Results(self.out, self.endpoint.model)

    def generate(self, wanted: dict[str, list[str]]) -> None:
        """Asks for what has no result yet, and adds up what the server counted."""
        for category in wanted:
            self.results.drop_unanswered(category)
        if all(self.results.done(category).issuperset(ids) for category, ids in wanted.items()):
            return
        write_json(self.out / "test_case_ids_to_generate.json", wanted)
        start, told = time.monotonic(), dict[str, int]()
        options, log = (*self.endpoint.serve_options, "--concurrency", str(self.threads)), self.out / "server.log"
        url = self.endpoint.base_url
        with serving(self.endpoint.model, options, log) if url is None else nullcontext() as server:
            watch, reached = partial(self._watch, wanted, told, server), server.url if server is not None else url
            try:
                self._harness(reached, watch, "generate", "--run-ids", "--num-threads", str(self.threads))
            finally:
                self._add_up(server.requests() if server is not None else Counter(), time.monotonic() - start)

    def score(self, categories: Sequence[str]) -> None:
        """Has the harness score what there is; nothing is called."""
        options = ("--partial-eval", "--test-category", ",".join(categories))
        self._harness(None, lambda: None, "evaluate", *options)

    def _harness(self, url: str | None, watch: Callable[[], None], verb: str, *options: str) -> None:
        command = self.environment.command(self.endpoint.model, verb, *options)
        variables = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | {
            "OPENAI_BASE_URL": url or "http://127.0.0.1/v1", "OPENAI_API_KEY": self.endpoint.api_key or "none",
            "BFCL_PROJECT_ROOT": str(self.out),
        }  # fmt: skip
        log = self.out / f"{verb}.log"
        with log.open("a") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=variables, cwd=self.out, text=True
            )
            try:
                while not _ended(process):
                    watch()
            finally:
                stop(process)
        if process.returncode:
            raise RuntimeError(f"bfcl {verb} ended with code {process.returncode}; its log is {log}")
        watch()

    def _watch(self, wanted: dict[str, list[str]], told: dict[str, int], server: Server | None) -> None:
        """Tells what has been done since it was told last."""
        if server is not None:
            server.check()
        for category, ids in wanted.items():
            done = len(self.results.done(category).intersection(ids))
            if done > told.get(category, -1):  # a file that is being written anew may read as shorter
                told[category] = done
                self.on_progress(category, done, len(ids))

    # ---- what was counted -----------------------------------------------------------------------------------------

    def _add_up(self, requests: Counter[str], seconds: float) -> None:
        """A run that goes on after it was stopped has several servers."""
        before = self._counted()
        total = Counter(before["requests"]) + requests
        after = {"requests": dict(sorted(total.items())), "seconds": round(before["seconds"] + seconds, 1)}
        write_json(self.out / _COUNTED, after)

    def _counted(self) -> dict[str, Any]:
        path = self.out / _COUNTED
        return json.loads(path.read_text()) if path.exists() else {"requests": {}, "seconds": 0.0}

    def report(self, wanted: dict[str, list[str]]) -> dict[str, Any]:
        """The figures of each category, and how many requests were answered by which HTTP status."""
        counted = self._counted()
        entries = {category: len(self.environment.entries(category)) for category in wanted}
        scores = {category: self.results.score(category, entries[category]) for category in wanted}
        failed = sum(n for score in scores.values() for kind, n in score.errors.items() if kind.startswith("5"))
        return {
            "harness": f"bfcl-eval {VERSION}",
            "model": self.endpoint.model,
            "seconds": counted["seconds"],
            "requests": counted["requests"],
            "server_errors": max(failed, sum(n for status, n in counted["requests"].items() if status[0] == "5")),
            "categories": {category: score.to_json() for category, score in scores.items()},
        }


def _ended(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
