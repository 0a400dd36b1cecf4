"""News from other threads reach the loop, all of them, in order, with few wake-ups."""

from __future__ import annotations

import asyncio
import threading

from alpha_umi.serving.channel import Channel, Mailbox
from alpha_umi.serving.job import Delta, News


class _Counting(asyncio.SelectorEventLoop):
    wakes = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.wakes += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def _delta(number: int) -> News:
    return Delta(0, "content", str(number))


def test_what_one_step_tells_many_streams_wakes_the_loop_once():
    async def read() -> list[str]:
        mailbox = Mailbox(asyncio.get_running_loop())
        channels = [Channel(mailbox) for _ in range(50)]
        for number, channel in enumerate(channels):  # the loop is busy here, as it is when a step ends
            channel.put(_delta(number))
        return [str(getattr(await channel.get(), "text", None)) for channel in channels]

    with asyncio.Runner(loop_factory=_Counting) as runner:
        loop = runner.get_loop()
        told = runner.run(read())
        assert isinstance(loop, _Counting)
        assert told == [str(number) for number in range(50)] and loop.wakes == 1


def test_nothing_is_lost_or_overtaken_between_threads():
    async def read() -> None:
        mailbox = Mailbox(asyncio.get_running_loop())
        channels = [Channel(mailbox) for _ in range(4)]

        def tell(channel: Channel) -> None:
            for number in range(2000):
                channel.put(_delta(number))

        threads = [threading.Thread(target=tell, args=(channel,)) for channel in channels]
        for thread in threads:
            thread.start()
        for channel in channels:
            told = [str(getattr(await channel.get(), "text", None)) for _ in range(2000)]
            assert told == [str(number) for number in range(2000)]
        for thread in threads:
            thread.join()

    asyncio.run(read())


def test_news_after_the_loop_is_closed_are_dropped():
    loop = asyncio.new_event_loop()
    channel = Channel(Mailbox(loop))
    loop.close()
    channel.put(_delta(0))
