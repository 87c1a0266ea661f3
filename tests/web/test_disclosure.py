"""Clients see paths, exception messages and logs only if the host shows them, and never see secrets."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from furu import Furu, run_local_async, use_settings
from furu.service import Runs
from furu.web import FollowRun, job
from tests.web.asgi_calls import Answer, ask, mounted, post

pytestmark = pytest.mark.anyio

MESSAGE = "cannot reach db.internal as admin"


class Failing(Furu[int]):
    """Fails with a message that clients must not see."""

    name: str

    def _create(self) -> int:
        self.logger.error(MESSAGE)
        raise ConnectionError(MESSAGE)


class Pathless(Furu[int]):
    """Fails when its dependencies are read."""

    name: str

    def _dependencies(self) -> Any:
        raise ConnectionError(MESSAGE)

    def _create(self) -> int:
        return 1


@dataclasses.dataclass(frozen=True)
class Login:
    """A value with a secret."""

    user: str
    password: str = dataclasses.field(repr=False)


class Fetch(Furu[int]):
    """A node with secrets in its fields."""

    login: Login
    token: str = dataclasses.field(repr=False)
    fails: bool = False

    def _create(self) -> int:
        if self.fails:
            raise ValueError("no answer")
        return 1


def make(name: str) -> Furu[int]:
    """Make the root of the job `make`."""
    if name == "unlisted":
        raise LookupError(MESSAGE)
    return Pathless(name=name) if name == "pathless" else Failing(name=name)


async def every_answer(site: Starlette, runs: Runs, root: Furu[Any]) -> dict[str, Answer]:
    """Run a root, and request every page and JSON about the run, its node and the store."""
    run = await runs.submit([root])
    await run.wait_ended()
    node = root.furu_hash
    targets = [
        "",
        f"runs/{run.id}",
        f"nodes/{node}",
        f"nodes/{'0' * 32}",
        "store",
        f"store/nodes?class={type(root).__module__}:{type(root).__qualname__}",
        "store/nodes?class=x",
        "api/runs",
        f"api/runs/{run.id}",
        f"api/runs/{run.id}/events",
        f"api/nodes/{node}",
        f"api/nodes/{'0' * 32}",
        "api/store",
        "api/jobs",
    ]
    answers = {target: await ask(site, f"/furu/{target}") for target in targets}
    answers["follow"] = await ask(FollowRun(runs, [root]), "/")
    answers["stream"] = await ask(FollowRun(runs, [root], stream=True), "/")
    return answers


service = functools.partial(mounted, [job("make", make)])


@pytest.mark.parametrize("cls", [Failing, Pathless])
async def test_clients_see_no_path_and_no_exception_message(
    cls: type[Any], store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No page, JSON or stream contains either. The logs of the service have the message."""
    async with service() as (site, runs):
        answers = await every_answer(site, runs, cls(name="a"))
        answers["job"] = await post(site, "/furu/api/jobs/make", {"name": "b"})
        answers["streamed job"] = await post(
            site, "/furu/api/jobs/make", {"name": "c"}, accept="text/event-stream"
        )
    for target, answer in answers.items():
        assert answer.status in (200, 404), target
        for secret in (str(store), MESSAGE, "Traceback", 'File "'):
            assert secret not in answer.text, target
    logged = "\n".join(
        [record.getMessage() for record in caplog.records if record.name.startswith("furu.")]
    )
    assert MESSAGE in logged


async def test_clients_see_which_node_failed_and_the_class_of_the_error() -> None:
    """This is shown on the pages of the run and the node, in JSON and at the end of the stream."""
    node = Failing(name="a")
    async with service() as (site, runs):
        answers = await every_answer(site, runs, node)
        [run] = [run for run in runs.recent() if run.title.startswith("Failing")][-1:]
    expected = f"failed: Failing {node.furu_hash[:12]} (ConnectionError). The log of the service has more."
    assert expected == answers[f"api/runs/{run.id}"].json()["error"]
    assert expected == answers["follow"].json()["error"]
    assert expected == answers["stream"].events()[-1][2]["error"]
    assert "ConnectionError" == answers[f"api/nodes/{node.furu_hash}"].json()["attempts"][0]["error"]
    assert "ConnectionError" in answers[f"nodes/{node.furu_hash}"].text


async def test_host_may_show_messages_tracebacks_logs_and_directories(store: Path) -> None:
    node = Failing(name="a")
    async with service(show_details=True) as (site, runs):
        answers = await every_answer(site, runs, node)
        page = answers[f"nodes/{node.furu_hash}"].text
        attempt = answers[f"api/nodes/{node.furu_hash}"].json()["attempts"][0]
        run = runs.recent()[-1]
    assert MESSAGE in answers[f"api/runs/{run.id}"].json()["error"]
    assert MESSAGE in answers[f"api/runs/{run.id}/events"].text
    assert MESSAGE in answers[f"runs/{run.id}"].text
    assert MESSAGE in attempt["log"]
    assert MESSAGE in attempt["error"]
    assert str(store) in page
    assert "raise ConnectionError(MESSAGE)" in page
    assert str(store) == answers["api/store"].json()["store"]


@pytest.mark.parametrize("fails", [False, True])
async def test_fields_with_repr_false_are_never_sent(fails: bool) -> None:
    """The fields are hidden even if details are shown, both for stored nodes and in a live run."""
    node = Fetch(login=Login("ann", "swordfish"), token="xyzzy", fails=fails)
    begun, go_on = anyio.Event(), anyio.Event()

    async def compute(roots: Any, **options: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await run_local_async(roots, **options)

    async with service(show_details=True, compute=compute) as (site, runs):
        run = await runs.submit([node])
        await begun.wait()
        early = [await ask(site, f"/furu/{place}/{node.furu_hash}") for place in ("nodes", "api/nodes")] + [
            await ask(site, f"/furu/runs/{run.id}")
        ]
        go_on.set()
        answers = await every_answer(site, runs, node)
    assert [200, 200, 200] == [answer.status for answer in early]
    assert {"user": "ann", "password": "<hidden>"} == early[1].json()["config"]["login"]
    assert "<hidden>" == early[1].json()["config"]["token"]
    for answer in [*early, *answers.values()]:
        assert "swordfish" not in answer.text
        assert "xyzzy" not in answer.text


async def test_store_that_cannot_be_listed_is_500_without_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer is not 404, as for a missing node. The log has the path."""
    store = tmp_path / "secret-store"
    store.mkdir()
    looping = store / "loop"
    looping.symlink_to(looping)
    async with service() as (site, _):
        with use_settings(store=looping):
            for target in ("store", "api/store", "store/nodes?class=a", f"nodes/{'0' * 32}"):
                answer = await ask(site, f"/furu/{target}")
                assert (500, False) == (answer.status, "secret-store" in answer.text), target
                assert "The log of the service has more." in answer.text
    assert "secret-store" in caplog.text


async def test_settings_error_of_a_job_function_is_not_shown_to_clients() -> None:
    """A `ValueError` of a job function is shown to clients, but this subclass is not."""

    def wrong(name: str) -> Furu[int]:
        with use_settings(lease_sec=-1):
            return Failing(name=name)

    async with mounted([job("wrong", wrong)]) as (site, runs):
        answer = await post(site, "/furu/api/jobs/wrong", {"name": "a"})
        assert (500, False) == (answer.status, "lease_sec" in answer.text)
        assert [] == runs.live()


async def test_failed_run_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "furu.service")
    async with service() as (_, runs):
        for _number in range(3):
            await (await runs.submit([Failing(name="a")])).wait_ended()
    assert 3 == sum(
        "failed" in record.getMessage() for record in caplog.records if record.name == "furu.service"
    )
