"""Two requests for pieces of one graph, on one event loop that stays free."""

import asyncio

from furu import Furu, run_local_async


class Page(Furu[str]):
    name: str

    async def _create(self) -> str:
        await asyncio.sleep(0.01)  # a download
        return f"{self.name} " * 3


class WordCount(Furu[int]):
    page: Page

    def _create(self) -> int:
        return len(self.page.get().split())


async def answer(name: str) -> str:
    count = WordCount(page=Page(name=name))
    await run_local_async([count])
    return f"{name}: {await count.aget()} words"


async def main() -> None:
    ticks = 0

    async def stay_alive() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    heartbeat = asyncio.create_task(stay_alive())
    for line in await asyncio.gather(answer("alpha"), answer("beta"), answer("alpha")):
        print(line)
    heartbeat.cancel()
    print("the loop was free:", ticks > 100)


asyncio.run(main())
