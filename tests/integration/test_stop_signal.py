"""A SIGTERM reaches the workers or ends the training itself, whatever happens to the process of the flag between."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import ray

from llm4seg.cluster import ray_stop_signal
from llm4seg.cluster.ray_stop_signal import INTERVAL, RayStopSignal
from llm4seg.cluster.session import ray_session
from llm4seg.cluster.stop_signal import stop_on_sigterm
from llm4seg.config import Config
from llm4seg.utils.errors import StopRequested
from tests.import_graph import ROOT

SECONDS = 60.0


@pytest.fixture(scope="module")
def session(workspace: Config) -> Iterator[None]:
    with ray_session(workspace.cluster):
        yield


@pytest.fixture
def sent(session: None) -> RayStopSignal:
    """A stop signal that a worker has polled."""
    stop_signal = RayStopSignal()
    assert not of_worker(stop_signal).stop_requested()
    return stop_signal


def of_worker(stop_signal: RayStopSignal) -> RayStopSignal:
    """As it arrives in another process, which has not polled yet."""
    copy: RayStopSignal = pickle.loads(pickle.dumps(stop_signal))
    copy._requested = False
    return copy


def flag(stop_signal: RayStopSignal) -> psutil.Process:
    """The process that holds the flag."""
    return psutil.Process(ray.get(stop_signal._flag.__ray_call__.remote(lambda _: os.getpid())))


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(INTERVAL)
    return met


def ask_to_leave(seconds: float) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)


def test_a_flag_whose_process_is_gone_is_set_in_a_new_one(sent: RayStopSignal) -> None:
    with stop_on_sigterm(sent):
        flag(sent).kill()
        os.kill(os.getpid(), signal.SIGTERM)
        assert wait_until(of_worker(sent).stop_requested)


def test_a_new_process_of_the_flag_hears_of_the_stop_that_the_old_one_had_heard_of(sent: RayStopSignal) -> None:
    with stop_on_sigterm(sent):
        os.kill(os.getpid(), signal.SIGTERM)
        assert wait_until(of_worker(sent).stop_requested)
        before = flag(sent)
        before.kill()
        assert wait_until(lambda: flag(sent) != before)
        assert wait_until(of_worker(sent).stop_requested)


def test_a_flag_that_does_not_answer_is_waited_for_and_the_handler_is_not(sent: RayStopSignal) -> None:
    frozen = flag(sent)
    frozen.suspend()
    with stop_on_sigterm(sent):
        begin = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        assert time.monotonic() - begin < INTERVAL
        time.sleep(3 * INTERVAL)
        frozen.resume()
        assert wait_until(of_worker(sent).stop_requested)


def test_a_worker_trains_on_while_the_flag_does_not_answer(
    sent: RayStopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_stop_signal, "POLL_PATIENCE", 0.5)
    worker, frozen = of_worker(sent), flag(sent)
    frozen.suspend()
    sent._flag.request_stop.remote()
    assert not worker.stop_requested()
    frozen.resume()
    assert wait_until(worker.stop_requested)


def test_a_stop_that_nobody_would_hear_of_ends_the_training_at_once(
    sent: RayStopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_stop_signal, "PATIENCE", 1.0)
    frozen = flag(sent)
    frozen.suspend()
    with stop_on_sigterm(sent), pytest.raises(StopRequested, match="did not wait for its workers"):
        ask_to_leave(SECONDS)
    frozen.resume()


UNREACHABLE = """
import os, signal, time
from pathlib import Path
import ray
from llm4seg.cluster.ray_stop_signal import RayStopSignal
from llm4seg.cluster.session import ray_session
from llm4seg.cluster.stop_signal import stop_on_sigterm
from llm4seg.config import Config
with ray_session(Config.load(Path("params.yaml")).cluster):
    stop_signal = RayStopSignal()
    with stop_on_sigterm(stop_signal):
        print(stop_signal.stop_requested())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    print(ray.get(stop_signal._flag.stop_requested.remote()))
"""


def test_calls_that_do_not_reach_the_flag_are_repeated() -> None:
    """The first three, of which Ray itself says that they could not be sent."""
    failures = {"num_failures": 3, "req_failure_prob": 100, "resp_failure_prob": 0, "in_flight_failure_prob": 0}
    environment = {
        "RAY_testing_rpc_failure": json.dumps({"CoreWorkerService.grpc_client.PushTask": failures}),
        "RAY_testing_rpc_failure_avoid_intra_node_failures": "0",
    }
    command = [sys.executable, "-c", UNREACHABLE]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    said = done.stdout.splitlines()  # with Ray's own lines
    assert [line for line in said if line in ("False", "True")] == ["False", "True"], done.stderr
    assert any("Task _StopFlag.stop_requested failed" in line for line in said)
