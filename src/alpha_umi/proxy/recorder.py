"""Records in a thread of its own: nothing that passes waits for it, and what fails there is counted and told once."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Scope

from alpha_umi.proxy.exchange import NotRecorded, record_of
from alpha_umi.proxy.files import RecordFiles
from alpha_umi.proxy.headers import opted_out
from alpha_umi.proxy.limits import ProxyLimits
from alpha_umi.proxy.records import opening
from alpha_umi.proxy.tape import Budget, Tape
from alpha_umi.trajectory import json_text

_log = logging.getLogger(__name__)
_STOP_SECONDS = 30
Listener = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Tally:
    """What a recorder has done.

    Attributes:
        recorded: Exchanges that are in the files.
        left_out: How many chat completions were not recorded, by reason.
        tokens: That the recorded responses say they used, by the model that answered.
    """

    recorded: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)


class Recorder:
    """Records chat completions with tools into a folder.

    Args:
        folder: Made if it isn't there.
        sample: Share of the conversations that are recorded, from 0 to 1.
        limits: How much is kept.
        listener: Told of every exchange that was recorded, in the recorder's thread.

    Raises:
        UserError: The folder can't be written to.
    """

    def __init__(
        self, folder: Path, sample: float = 1.0, limits: ProxyLimits | None = None, listener: Listener | None = None
    ) -> None:
        self._limits = limits or ProxyLimits()
        self._files = RecordFiles(folder, self._limits.file_bytes, self._limits.disk_bytes)
        self._sample, self._listener = sample, listener
        self._budget = Budget(self._limits.memory_bytes)
        self._queue: queue.SimpleQueue[Tape | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._recorded = 0
        self._left_out: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def tally(self) -> Tally:
        """What was done so far."""
        with self._lock:
            return Tally(self._recorded, self._left_out.copy(), self._tokens.copy())

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    def stop(self) -> None:
        """Records what is still waiting, for half a minute at most, and ends."""
        self._queue.put(None)
        self._thread.join(_STOP_SECONDS)

    def tape(self, scope: Scope) -> Tape | None:
        """A tape for a request that may have to be recorded; None for any other. Never fails."""
        path = scope["path"]
        if scope["method"] != "POST" or not path.endswith("/chat/completions"):
            return None
        if opted_out(scope["headers"]):
            self._leave_out("opted out")
            return None
        tape = Tape.of(path, scope["headers"], self._budget, self._limits.body_bytes)
        if tape is None:
            self._leave_out("too many bodies at one time", tell=True)
        return tape

    def keep(self, tape: Tape) -> None:
        """Takes an exchange that has ended; returns at once."""
        tape.seconds = time.time() - tape.started
        self._queue.put(tape)

    def _leave_out(self, why: str, tell: bool = False) -> None:
        with self._lock:
            first = why not in self._left_out
            self._left_out[why] += 1
        if first and tell:
            _log.warning("not recorded: %s (told once; the application is served all the same)", why)

    def _work(self) -> None:
        while (tape := self._queue.get()) is not None:
            try:
                self._record(tape)
            except NotRecorded as error:
                self._leave_out(str(error))
            except OSError as error:
                self._leave_out(f"can't write: {error.strerror or error}", tell=True)
            except Exception as error:  # a mistake of ours must not end the recording, let alone the application
                self._leave_out(f"a mistake of the recorder: {type(error).__name__}", tell=True)
            finally:
                tape.release()
        self._files.close()

    def _record(self, tape: Tape) -> None:
        record = record_of(tape, self._sample)
        self._files.append(json_text(record).encode())
        answer = record["response"] if isinstance(record["response"], dict) else {}
        model, used = answer.get("model") or record["request"].get("model"), answer.get("usage")
        total = used.get("total_tokens") if isinstance(used, dict) else None
        with self._lock:
            self._recorded += 1
            self._tokens[str(model)] += total if isinstance(total, int) else 0
        if self._listener is not None:
            told = {key: record[key] for key in ("id", "path", "status", "seconds", "problem")}
            conversation = opening(record["request"]["messages"]).hex()[:12]
            self._listener({"event": "recorded", "conversation": conversation, "model": model, "usage": used, **told})
