"""A consumer of a message queue: each message asks for a number, and some ask for the same one."""

import asyncio
from collections.abc import AsyncIterator

from furu import Furu
from furu.service import Runs


class Price(Furu[int]):
    """A price that another server sets."""

    item: str

    async def _create(self) -> int:
        await asyncio.sleep(0.01)  # a request to another server
        return 10 * len(self.item)


class Offer(Furu[int]):
    """What several things cost together."""

    prices: tuple[Price, ...]

    def _create(self) -> int:
        return sum(price.get() for price in self.prices)


async def messages() -> AsyncIterator[str]:
    for text in ("tea cake", "tea", "cake tea", "tea cake", "stop"):
        yield text


async def answer(runs: Runs, text: str, computed: dict[str, int]) -> str:
    offer = Offer(prices=tuple(Price(item=item) for item in text.split()))
    if not await asyncio.to_thread(offer.exists):
        async with runs.follow([offer]) as run:  # waits if `max_running` runs are running
            report = await run.wait()
        computed[run.id] = report.computed
    return f"{text}: {await offer.aget()}"


async def main() -> None:
    computed: dict[str, int] = {}
    tasks = []
    in_hand = asyncio.Semaphore(10)  # max_running + max_queued: one more would raise RunsFullError
    async with Runs(max_running=2, max_queued=8, grace_sec=5) as runs:
        async for text in messages():
            if text == "stop":
                break
            await in_hand.acquire()
            task = asyncio.create_task(answer(runs, text, computed))
            task.add_done_callback(lambda _: in_hand.release())
            tasks.append(task)
        for line in await asyncio.gather(*tasks):
            print(line)
    print(f"{len(tasks)} messages, {sum(computed.values())} nodes computed")


asyncio.run(main())
