"""What a server has done, in Prometheus' text format (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_HELP = {
    "requests_total": "Chat completion requests, by HTTP status (499: the client left).",
    "answers_total": "Answers, by why they ended.",
    "prompt_tokens_total": "Tokens of conversations.",
    "cached_tokens_total": "Of these, tokens whose keys and values were in the cache.",
    "prefill_tokens_total": "Tokens that the models read, all roles together.",
    "generated_tokens_total": "Tokens that the models wrote.",
    "request_seconds": "Time from a request to the end of its response.",
    "first_event_seconds": "Time from a request to the first that is known of its answer.",
    "running": "Answers that are worked on.",
    "waiting": "Answers that wait.",
    "remembered_conversations": "Conversations whose exact tokens are kept.",
}


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.total = 0.0

    def lines(self, name: str) -> list[str]:
        below, out = 0, []
        for bound, count in zip((*_BUCKETS, "+Inf"), self.counts, strict=True):
            below += count
            out.append(f'{name}_bucket{{le="{bound}"}} {below}')
        return [*out, f"{name}_sum {self.total}", f"{name}_count {below}"]


class Metrics:
    """Counters and histograms of one server; any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, Counter[str]] = {}
        self._histograms: dict[str, _Histogram] = {}

    def count(self, name: str, amount: int = 1, labels: str = "") -> None:
        """Adds to a counter; labels are written as they stand in the format: ``reason="answered"``."""
        with self._lock:
            self._counters.setdefault(name, Counter())[labels] += amount

    def observe(self, name: str, seconds: float) -> None:
        """Adds to a histogram."""
        with self._lock:
            histogram = self._histograms.setdefault(name, _Histogram())
            histogram.counts[bisect_left(_BUCKETS, seconds)] += 1
            histogram.total += seconds

    def text(self, gauges: Sequence[tuple[str, Callable[[], int]]]) -> str:
        """All of it, with gauges that are read now."""
        lines: list[str] = []
        with self._lock:
            for name, counter in self._counters.items():
                lines += _head(name, "counter")
                lines += [
                    f"umi_{name}{{{labels}}} {n}" if labels else f"umi_{name} {n}" for labels, n in counter.items()
                ]
            for name, histogram in self._histograms.items():
                lines += [*_head(name, "histogram"), *histogram.lines(f"umi_{name}")]
        for name, read in gauges:
            lines += [*_head(name, "gauge"), f"umi_{name} {read()}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP umi_{name} {_HELP[name]}", f"# TYPE umi_{name} {kind}"]
