"""The virtual APIs: each call answered from what is recorded, then from what is published, then by the simulator."""

from __future__ import annotations

import asyncio
from collections import Counter
from weakref import WeakValueDictionary

from alpha_umi.worlds.documents import Documents
from alpha_umi.worlds.protocol import ApiCall, ApiReply, Failure, VirtualRequest
from alpha_umi.worlds.published_cache import PublishedCache
from alpha_umi.worlds.replies import Kept, ReplyStore
from alpha_umi.worlds.simulator import Known, Simulator

NOBODY, PUBLISHED = "nobody", "published cache"


class VirtualApis:
    """Answers calls, each the same way every time, whatever came before it.

    Args:
        store: What was answered; everything that is answered comes into it.
        published: StableToolBench's cache.
        documents: Which APIs there are.
        simulator: Answers what nobody recorded; None answers nothing new.

    Attributes:
        answered: How many calls were answered, by whom.
    """

    def __init__(
        self,
        store: ReplyStore,
        *,
        published: PublishedCache | None = None,
        documents: Documents | None = None,
        simulator: Simulator | None = None,
    ) -> None:
        self._store, self._published = store, published
        self._documents, self._simulator = documents or Documents([]), simulator
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.answered: Counter[str] = Counter()

    async def answer(self, request: VirtualRequest) -> Kept:
        """The reply to a call.

        Raises:
            UserError: The simulator can't be reached; nothing is recorded then.
        """
        call = request.call()
        if call is None:
            kept = _nobody(Failure.INVALID_INPUT, "tool_input must be one JSON object with the arguments")
        else:
            lock = self._locks.setdefault(call.key, asyncio.Lock())
            async with lock:  # calls that are equal are answered once
                kept = self._store.get(call) or await self._new(call)
        self.answered[kept.answered_by] += 1
        return kept

    async def aclose(self) -> None:
        """Closes the file and the simulator's connections."""
        if self._simulator is not None:
            await self._simulator.aclose()
        self._store.close()

    async def _new(self, call: ApiCall) -> Kept:
        published = None if self._published is None else self._published.get(call)
        if published is not None:
            return self._store.keep(call, published, PUBLISHED)
        examples = () if self._published is None else self._published.examples(call.name)
        known = Known(self._documents.get(call.name), examples)
        if known.document is None and not known.examples:
            return _nobody(Failure.UNKNOWN_API, f"there is no API {call.name.api} of {call.name.collection}")
        if self._simulator is None:
            return _nobody(Failure.NOT_RECORDED, f"no reply of {call.name.api} to these arguments is recorded")
        return self._store.keep(call, await self._simulator.answer(call, known), self._simulator.name)


def _nobody(failure: Failure, error: str) -> Kept:
    return Kept(ApiReply.failed(failure, error), NOBODY)
