"""From the thread that generates to the coroutine that answers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from alpha_umi.serving.errors import ApiError
from alpha_umi.serving.job import Answer, Begun, Delta, Failed, News


class Mailbox:
    """Carries news from any thread into a loop, waking it once for all that came in the meantime.

    A step of the engine tells every stream its token: one wake-up a step costs a fraction of one a token.

    Args:
        loop: Where the queues are read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[asyncio.Queue[News], News]] = deque()
        self._woken = threading.Lock()

    def put(self, queue: asyncio.Queue[News], news: News) -> None:
        """Puts the news into a queue of the loop soon, in the order told; any thread may."""
        self._waiting.append((queue, news))
        if self._woken.acquire(blocking=False):
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed, so nobody listens
                self._waiting.clear()

    def _deliver(self) -> None:
        self._woken.release()  # before looking: what comes from now on wakes the loop again
        while self._waiting:
            queue, news = self._waiting.popleft()
            queue.put_nowait(news)


class Channel:
    """The news of all answers of one request.

    Args:
        mailbox: Of the loop whose coroutine reads them.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._queue = asyncio.Queue[News]()
        self._early: list[News] = []

    def put(self, news: News) -> None:
        """Tells the news; any thread may."""
        self._mailbox.put(self._queue, news)

    def end(self, error: ApiError) -> None:
        """Nobody listens any more; in the loop's own thread."""
        self._queue.put_nowait(Failed(error))

    async def begun(self, count: int) -> None:
        """Returns when so many answers are begun, or are over already.

        Raises:
            ApiError: One of them can't be.
        """
        while count:
            news = await self._queue.get()
            if isinstance(news, Failed):
                raise news.error
            if isinstance(news, Begun):
                count -= 1
            else:
                self._early.append(news)

    async def get(self) -> Delta | Answer:
        """What comes next.

        Raises:
            ApiError: One of the answers has failed.
        """
        while True:
            news = self._early.pop(0) if self._early else await self._queue.get()
            if isinstance(news, Failed):
                raise news.error
            if not isinstance(news, Begun):
                return news

    async def answers(self, count: int) -> list[Answer]:
        """All answers, by their index.

        Raises:
            ApiError: One of them has failed.
        """
        made: list[Answer] = []
        while len(made) < count:
            news = await self.get()
            if isinstance(news, Answer):
                made.append(news)
        return sorted(made, key=lambda answer: answer.index)
