"""Asks a judge: each question once, replies kept, unreadable ones asked again, everything counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from alpha_umi.judges.cache import ReplyCache
from alpha_umi.judges.config import Price
from alpha_umi.judges.judge import Arguments, Judge, Spoken
from alpha_umi.judges.questions import Question, Templates

ATTEMPTS = 3
"""How often a question is put until its reply can be read, as in ToolEval."""

T = TypeVar("T")


@dataclass
class Bill:
    """What judging takes.

    Attributes:
        asked: Questions, or requests.
        prompt_tokens: Read by the judge, as its server counts them.
        completion_tokens: Written by it, likewise.
    """

    asked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, spoken: Spoken) -> None:
        """Counts a reply."""
        self.asked += 1
        self.prompt_tokens += spoken.prompt_tokens
        self.completion_tokens += spoken.completion_tokens

    def to_json(self, price: Price | None = None) -> dict[str, Any]:
        """As JSON, with ``money`` if there is a price."""
        money = {} if price is None else {"money": price.of(self.prompt_tokens, self.completion_tokens)}
        return {**asdict(self), **money}


@dataclass
class Asker:
    """One judge with its wording, its cache and its bills.

    Attributes:
        judge: Who answers.
        templates: In which words it is asked.
        cache: What it has said before; None asks every time.
        seed: Seeds the judge's sampling; another one is another judgement.
        keep: Put what it says now into the cache.
        cost: Of all questions that were answered, whether now or when the cache was filled.
        spent: Of the requests that were sent now.
        unreadable: Questions without a reply that could be read, after all attempts.
    """

    judge: Judge
    templates: Templates
    cache: ReplyCache | None = None
    seed: int = 0
    keep: bool = True
    cost: Bill = field(default_factory=Bill)
    spent: Bill = field(default_factory=Bill)
    unreadable: int = 0

    async def ask(self, question: Question, read: Callable[[Arguments], T | None]) -> tuple[T | None, str]:
        """What ``read`` makes of the reply, and the judge's reason; None if no attempt could be read."""
        known = None if self.cache is None else self.cache.get(self.judge.fingerprint, question, self.seed)
        found = _read(known, read)
        if known is not None and found is not None:
            self.cost.add(known)
            return found, _reason(known)
        whole = Bill()
        for attempt in range(ATTEMPTS):
            spoken = await self.judge.ask(question, _seed(self.seed, question.vote, attempt))
            self.spent.add(spoken)
            whole.add(spoken)
            found = _read(spoken, read)
            if found is not None:
                self._put(question, Spoken(spoken.arguments, whole.prompt_tokens, whole.completion_tokens))
                return found, _reason(spoken)
        self.unreadable += 1
        return None, ""

    def _put(self, question: Question, spoken: Spoken) -> None:
        """Counts and keeps a reply, with the tokens of all attempts that it took."""
        self.cost.add(spoken)
        if self.cache is not None and self.keep:
            self.cache.put(self.judge.fingerprint, question, self.seed, spoken)


def _read(spoken: Spoken | None, read: Callable[[Arguments], T | None]) -> T | None:
    return None if spoken is None or spoken.arguments is None else read(spoken.arguments)


def _seed(seed: int, vote: int, attempt: int) -> int:
    """A seed for the server, other for each vote and attempt; within 31 bits, which all servers take."""
    digest = hashlib.sha256(f"{seed} {vote} {attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _reason(spoken: Spoken) -> str:
    return str((spoken.arguments or {}).get("reason", ""))
