"""Services in separate server processes: the example, and a service that is stopped during a run."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from pathlib import Path

import httpx
import pytest

from furu import Status, current_settings
from furu.store import catalog
from tests.web.servers import running, serving

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "service.py"
PAGE = EXAMPLE.parents[1] / "how-to" / "embed-in-a-web-service.md"
SERVICE = Path(__file__).with_name("load_service.py")
STREAM = {"accept": "text/event-stream"}


@pytest.fixture
def client() -> httpx.Client:
    """A client that ignores proxies of the environment."""
    return httpx.Client(trust_env=False, timeout=15)


def states() -> Counter[Status]:
    """Count the nodes in the store of this test by status."""
    return Counter(entry.status() for entry in catalog.walk(current_settings()))


def test_example_computes_shared_paragraphs_once(store: Path, client: httpx.Client) -> None:
    """Post, stream, fetch and watch two documents that share a paragraph."""
    first, second = "one two two\n\nthree", "one two two\n\nthree three three"
    with serving(EXAMPLE, store) as server, client:
        posted = client.post(f"{server.url}/documents", json={"text": first})
        assert 202 == posted.status_code
        place = posted.json()
        assert place["document"] in PAGE.read_text()
        report = client.get(server.url + place["document"]).json()
        assert {"two": 2, "one": 1, "three": 1} == report
        ended = client.get(f"{server.url}/furu/api/runs").json()
        assert report == client.get(server.url + place["document"]).json()
        again = client.post(f"{server.url}/documents", json={"text": first})
        assert (200, {"document": place["document"]}) == (again.status_code, again.json())
        assert ended == client.get(f"{server.url}/furu/api/runs").json(), "nothing ran for what is there"
        assert "finished" in client.get(server.url + place["watch"]).text
        streamed = client.post(f"{server.url}/documents", json={"text": second}, headers=STREAM).text
        assert {"done": 2, "reused": 1} == json.loads(streamed.rsplit("data: ", 1)[1])["counts"]
        job = client.post(f"{server.url}/furu/api/jobs/report", json={"text": first})
        assert {"reused": 1} == job.json()["counts"]
        refused = client.post(f"{server.url}/documents", json={"text": ""})
        assert 422 == refused.status_code
        assert 404 == client.get(f"{server.url}/documents/other").status_code
        assert -15 == server.end()[0]  # uvicorn exits with the signal that it received
    assert {Status.DONE: 5} == states()


def test_sigterm_leaves_no_node_in_progress_and_a_restart_continues(
    store: Path, client: httpx.Client
) -> None:
    """A client is watching the run. Nodes that are done are not computed again."""
    with serving(SERVICE, store, "0.2") as server, client:
        run = client.post(f"{server.url}/furu/api/jobs/slow", json={"count": 12}).json()
        events = f"{server.url}/furu/api/runs/{run['id']}/events"
        with client.stream("GET", events) as stream:
            for line in stream.iter_lines():
                if '"state":"done"' in line:
                    break
            code, _ = server.end()
        assert -15 == code
        assert f"1 runs were cancelled after 0.2 s: {run['id']}" in server.process.stderr.read()  # type: ignore[union-attr]
    before = states()
    assert before[Status.DONE] in range(4, 12)
    assert {Status.DONE, Status.TODO} == set(before)
    with serving(SERVICE, store, "0.2") as server, httpx.Client(trust_env=False, timeout=15) as client:
        again = client.post(f"{server.url}/furu/api/jobs/slow", json={"count": 12}, headers=STREAM).text
        assert re.search(r'"reused":(\d+)', again)[1] == str(before[Status.DONE])  # type: ignore[index]
    assert {Status.DONE: 12} == states()


def test_client_that_leaves_while_it_sends_its_body_causes_no_traceback(
    store: Path, client: httpx.Client
) -> None:
    """This holds for the routes of the example and of the pages."""
    with serving(EXAMPLE, store) as server, client:
        for target in ("/documents", "/furu/api/jobs/report"):
            host, _, port = server.url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port))) as connection:
                head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                connection.sendall(f'{head}Content-Length: 100\r\n\r\n{{"text"'.encode())
        assert [] == client.get(f"{server.url}/furu/api/runs").json()
        server.end()
        assert "Traceback" not in server.process.stderr.read()  # type: ignore[union-attr]


# The commands of several servers for the same application.
SERVERS = {
    "uvicorn": ["-m", "uvicorn", "service:app", "--port", "0"],
    "hypercorn": ["-m", "hypercorn", "service:app", "--bind", "127.0.0.1:0"],
    "gunicorn": [
        "-m",
        "gunicorn",
        "service:app",
        "-b",
        "127.0.0.1:0",
        "-k",
        "uvicorn_worker.UvicornWorker",
    ],
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SERVERS)
def test_signal_stops_runs_under_every_server_although_clients_watch(
    name: str, store: Path, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example handles the signal itself, so it does not depend on what the server does first."""
    pytest.importorskip({"gunicorn": "uvicorn_worker"}.get(name, name))
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    text = "word " * 19_000  # half a minute of work
    with running(SERVERS[name], store, name) as server, client:
        posted = client.post(f"{server.url}/documents", json={"text": text}).json()
        run = posted["watch"].rpartition("/")[2]
        with client.stream("GET", f"{server.url}/furu/api/runs/{run}/events") as stream:
            for line in stream.iter_lines():
                if '"state":"running"' in line:
                    break
            _, took_sec = server.end()
        assert f"1 runs were cancelled after 3 s: {run}" in server.process.stderr.read()  # type: ignore[union-attr]
    assert took_sec < 20, "three seconds of grace, and some for the server"
    assert {Status.TODO} == set(states())
