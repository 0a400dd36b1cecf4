"""What judging will cost, before it does: the procedure itself is run, with a stand-in that answers at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from alpha_umi.judges.asking import Asker
from alpha_umi.judges.judge import Judge, Spoken, run_with
from alpha_umi.judges.questions import CHECK_ANSWER, CHECK_RUN, CHECK_TASK, Question

CHARACTERS_A_TOKEN = 4
REPLY_TOKENS = 150

Work = Callable[[Asker], Awaitable[Any]]


class StandIn:
    """Answers so that as little, or as much, as can be is asked; what is in the cache comes from the cache.

    Args:
        judge: In whose place it stands.
        most: Every answer needs its second look, and every pair a comparison; otherwise of each query the first
            system's answer is solved, the others are not, and neither needs more.
    """

    def __init__(self, judge: Judge, most: bool) -> None:
        self.name, self.fingerprint, self._most = judge.name, judge.fingerprint, most
        self._first: dict[str, str] = {}

    async def ask(self, question: Question, seed: int) -> Spoken:
        """Answers at once, and reports tokens by the length of the prompt."""
        length = len(question.prompt) + len(str(question.schema))
        return Spoken(self._answer(question), length // CHARACTERS_A_TOKEN, REPLY_TOKENS)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _answer(self, question: Question) -> dict[str, Any]:
        if question.name == CHECK_ANSWER:
            return {"answer_status": "Unsure" if self._most else self._plain(*question.subject[:2])}
        if question.name == CHECK_RUN:
            return {"answer_status": "Unsolved"}
        return {"task_status": "Unsure"} if question.name == CHECK_TASK else {"index": 0}

    def _plain(self, query_id: str, system: str) -> str:
        return "Solved" if self._first.setdefault(query_id, system) == system else "Unsolved"


def estimate(asker: Asker, work: Work) -> tuple[Asker, Asker]:
    """Runs ``work`` with stand-ins; the askers that come back have counted the least and the most it may take.

    Tokens are guessed: four characters each, 150 a reply. Replies that have to be asked for again are not foreseen.
    """
    found = []
    for most in (False, True):
        stand_in = Asker(StandIn(asker.judge, most), asker.templates, asker.cache, asker.seed, keep=False)
        run_with(stand_in.judge, lambda one=stand_in: work(one))
        found.append(stand_in)
    return found[0], found[1]
