"""A load test of a service: `nox -s load`. Exits with an error if a figure exceeds its limit.

It is not part of the tests, because it takes a minute or two and latencies depend on the machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from furu import Settings, Status
from furu.store import catalog
from tests.web.servers import Server, serving

SERVICE = Path(__file__).with_name("load_service.py")
MOST_P99_SEC = 0.05
missed: list[str] = []
NODES = 10_000
GRACE_SEC = 2.0


class Client:
    """A minimal client: plain HTTP/1.1 on one connection that stays open."""

    def __init__(self, url: str) -> None:
        self._host, self._port = urlsplit(url).hostname, urlsplit(url).port

    async def open(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    def send(self, method: str, target: str, body: bytes = b"") -> None:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def ask(self, method: str, target: str, value: Any = None) -> bytes:
        self.send(method, target, b"" if value is None else json.dumps(value).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split()[0])
        return await self._reader.readexactly(length)

    async def value(self, method: str, target: str, value: Any = None) -> Any:
        return json.loads(await self.ask(method, target, value))

    def close(self) -> None:
        self._writer.close()


async def latencies(client: Client, *, until: asyncio.Event, most: int) -> list[float]:
    """Measure repeatedly how long a trivial request takes, and return the sorted seconds."""
    found = []
    while not until.is_set() and len(found) < most:
        begun = time.perf_counter()
        await client.ask("GET", "/ping")
        found.append(time.perf_counter() - begun)
        await asyncio.sleep(0.002)
    return sorted(found)


def demand(holds: bool, otherwise: str) -> None:
    if not holds:
        missed.append(otherwise)


def show(name: str, found: list[float]) -> float:
    p50, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
    figures = f"p50 {p50 * 1000:5.1f} ms  p99 {p99 * 1000:5.1f} ms  max {found[-1] * 1000:5.1f} ms"
    print(f"{name:34} {figures}  ({len(found):,} requests)", flush=True)
    return p99


async def measure(server: Server, kind: str) -> None:
    """Measure a trivial endpoint when idle, and during a run of many small nodes that a client watches."""
    client = await Client(server.url).open()
    show(f"idle ({kind})", await latencies(client, until=asyncio.Event(), most=1000))
    run = await client.value("POST", "/furu/api/jobs/small", {"count": NODES})
    over = asyncio.Event()
    began = time.monotonic()

    async def watch() -> None:
        watcher = await Client(server.url).open()
        watcher.send("GET", f"/furu/api/runs/{run['id']}/events")
        while b"event: end" not in await watcher._reader.readline():
            pass
        watcher.close()
        over.set()

    watching = asyncio.create_task(watch())
    found = await latencies(client, until=over, most=10**9)
    await watching
    p99 = show(f"{NODES:,} small nodes, workers {kind}", found)
    ended = await client.value("GET", f"/furu/api/runs/{run['id']}")
    print(f"  the run took {time.monotonic() - began:.1f} s: {ended['counts']}", flush=True)
    demand(ended["counts"].get("done") == NODES, f"not every node was computed: {ended['counts']}")
    demand(p99 < MOST_P99_SEC, f"p99 with workers {kind} is {p99 * 1000:.1f} ms")


async def drop_out(server: Server, number: int, draw: random.Random) -> None:
    """Request some of the shared nodes. In a third of the cases, disconnect at a random moment."""
    client = await Client(server.url).open()
    asked = client.value(
        "POST", "/furu/api/jobs/shared", {"first": draw.randrange(150) + number, "count": 40}
    )
    try:
        if draw.random() < 1 / 3:
            await asyncio.wait_for(asked, draw.random() * 0.3)
        else:
            assert (await asked)["state"] == "finished"
    except TimeoutError:
        pass
    finally:
        client.close()


async def overlap(server: Server) -> None:
    """Start 200 clients at once, ten times. A third of them drop out."""
    draw = random.Random(7)
    client = await Client(server.url).open()
    seen = []
    for turn in range(10):
        await asyncio.gather(*(drop_out(server, turn * 200, draw) for _ in range(200)))
        while (facts := await client.value("GET", "/facts"))["live"]:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)  # the server closes dropped connections a moment later
        facts = await client.value("GET", "/facts")
        seen.append(facts)
        print(f"  round {turn}: {facts}", flush=True)
    # Idle threads live for ten seconds, so their number grows at first.
    first, last = seen[len(seen) // 2], seen[-1]
    demand(last["slots"] == 8, "a run kept its place")
    demand(last["most"] == 1, f"a node was computed {last['most']} times")
    for name in ("descriptors", "threads", "tasks"):
        demand(last[name] <= first[name] + 2, f"{name} grow: {first} {last}")


async def terminate(server: Server, store: Path) -> None:
    """Send SIGTERM during a run, and check the time to exit, the exit code and the store."""
    client = await Client(server.url).open()
    await client.value("POST", "/furu/api/jobs/slow", {"count": 40})
    await asyncio.sleep(1.5)
    code, took_sec = await asyncio.to_thread(server.end)
    states = {entry.status() for entry in catalog.walk(Settings(store=store))}
    print(f"SIGTERM in mid-run: ended in {took_sec:.2f} s of {GRACE_SEC:g} + 1 s, states {sorted(states)}")
    demand(took_sec < GRACE_SEC + 1, f"it took {took_sec:.2f} s to end")
    demand(states <= {Status.DONE, Status.TODO}, f"the store is left with {states}")
    demand(code == -15, f"it ended with {code}")


def main() -> str | None:
    print(f"load average of the machine {os.getloadavg()[0]:.1f}, CPUs {os.cpu_count()}")
    for kind in ("thread", "process"):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder, "store")
            with serving(SERVICE, store, str(GRACE_SEC), kind) as server:
                asyncio.run(measure(server, kind))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        with serving(SERVICE, store, str(GRACE_SEC)) as server:
            print("200 clients at once for overlapping graphs, a third of whom drop out:")
            asyncio.run(overlap(server))
            asyncio.run(terminate(server, store))
    return "; ".join(missed) or None


if __name__ == "__main__":
    sys.exit(main())
