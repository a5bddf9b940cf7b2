"""A job's log is shown to its end, once, whatever happens to the connection."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from infra.jobs import client
from infra.jobs.client import Dashboard, LogFollower, job_client, submit_job, watch
from infra.jobs.job_spec import JobSpec
from llm4seg.utils.errors import InputError

LINES = [f"line {number}\n" for number in range(9)]
JOB = "p-20260101-000000-0123456"


class JobServer:
    """Answers as Ray's dashboard does; the connection of the first readers ends after some lines, and of the
    questions what a job does, those with these numbers are refused.
    """

    def __init__(self, cuts: list[int], status: str = "SUCCEEDED", refused: range = range(0)) -> None:
        self._cuts, self._status, self._done = cuts, status, False
        self._refused, self._asked = refused, 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/", self._all)
        app.router.add_get("/api/jobs/{job}", self._job)
        app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""})

    def _details(self) -> dict[str, Any]:
        status = self._status if self._done else "RUNNING"
        about = {"type": "SUBMISSION", "submission_id": JOB, "status": status, "entrypoint": "python bootstrap.py"}
        return about | ({"driver_exit_code": 3} if status == "FAILED" else {})

    async def _all(self, request: web.Request) -> web.Response:
        return web.json_response([self._details()])

    async def _job(self, request: web.Request) -> web.Response:
        self._asked += 1
        if self._asked in self._refused:
            return web.Response(status=500, text="Traceback:\n  some line\nOSError: no space left")
        if request.match_info["job"] != JOB:
            return web.Response(status=404, text="no such job")
        return web.json_response(self._details())

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        end = self._cuts.pop(0) if self._cuts else len(LINES)
        for line in LINES[:end]:
            await socket.send_str(line)
        if end < len(LINES):
            assert request.transport is not None
            request.transport.close()  # as a network that goes away
        else:
            self._done = True
            await socket.close()
        return socket

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


def dashboard(server: JobServer) -> Dashboard:
    return lambda: nullcontext(server.address)


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[JobServer]:
    made = JobServer(*request.param)
    yield made
    made.close()


@pytest.mark.parametrize(
    "server",
    [([],), ([4, 2, 7],), ([0, 4], "SUCCEEDED", range(2, 5))],
    indirect=True,
    ids=["whole", "lost in between", "lost before the first line"],
)
def test_every_line_is_shown_once(
    server: JobServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.01)
    assert LogFollower(dashboard(server), JOB).follow().status == "SUCCEEDED"
    assert capsys.readouterr().out == "".join(LINES)


@pytest.mark.parametrize("server", [([], "FAILED")], indirect=True)
def test_a_failure_is_one_line_with_the_exit_code(server: JobServer) -> None:
    with pytest.raises(InputError, match=f"^{JOB}: failed with exit code 3; what is finished"):
        watch(server.address, dashboard(server), JOB)


@pytest.mark.parametrize("server", [([0] * 99, "SUCCEEDED", range(2, 99))], indirect=True)
def test_a_connection_that_does_not_come_back(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE", 0.01)
    with pytest.raises(InputError, match=f"^{JOB} may go on, but .* does not come back: {server.address}: .* code 500"):
        LogFollower(dashboard(server), JOB).follow()


@pytest.mark.parametrize("server", [([], "SUCCEEDED", range(1, 99))], indirect=True)
def test_a_server_that_refuses_says_so(server: JobServer) -> None:
    """And not that there is no such job; likewise where it has no such page, as here for stopping one."""
    refused = f"^{server.address}: Ray's dashboard: Request failed with status code 500: .* OSError: no space left"
    with pytest.raises(InputError, match=refused):
        LogFollower(dashboard(server), JOB).follow()
    with (
        pytest.raises(InputError, match="Ray's dashboard: Request failed with status code 404"),
        job_client(dashboard(server)) as jobs,
    ):
        jobs.stop_job(JOB)


@pytest.mark.parametrize("server", [([],)], indirect=True)
def test_a_job_that_cannot_be_sent_is_one_line(server: JobServer, tmp_path: Path) -> None:
    spec = JobSpec(JOB, ["dvc", "repro"], "0" * 40, {}, {}, {"NAME": "Ada"})
    with (
        pytest.raises(InputError, match=f"^{server.address}: Ray's dashboard: "),
        job_client(dashboard(server)) as jobs,
    ):
        submit_job(jobs, spec, tmp_path)


@pytest.mark.parametrize("server", [([],)], indirect=True)
def test_an_unknown_job(server: JobServer) -> None:
    with pytest.raises(InputError, match=r"^x: no such job on this cluster; `python -m infra status`"):
        LogFollower(dashboard(server), "x").follow()
