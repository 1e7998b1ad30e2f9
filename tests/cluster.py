"""A real Ray cluster of two nodes on this machine, started as docs/cluster.md says: one trains, one carries `latency_target`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.postgres import die_with_parent, free_port

ROOT = Path(__file__).resolve().parents[1]
_TRIES = 3
"""Ray gives a node 30 s to come up, which a machine that is busy with other tests may miss."""

_QUICK = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
"""Ray's own settings: a node that is gone is noticed after seconds."""


def documented(program: str) -> list[str]:
    """The commands of a program in docs/cluster.md, in their order, without comments."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    return [line.split("  #")[0].strip() for line in re.findall(rf"^{program} .*", text, re.MULTILINE)]


def working(title: str) -> list[psutil.Process]:
    """Ray's processes that work on a task of that name now."""
    found = []
    for process in psutil.process_iter():
        try:
            if f"ray::lps-search {title}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def first_at_work(title: str, within_s: float = 120.0) -> psutil.Process:
    """A process that works on a task of that name, awaited."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if found := working(title):
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"nothing worked on a {title} within {within_s} s")


class TwoNodes:
    """The cluster: `address` of its head, whose node trains; the other can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._nodes: dict[str, subprocess.Popen[str]] = {}
        self._starter = ThreadPoolExecutor(1)  # a node ends with the thread that starts it, so that one stays

    def start_trainer(self) -> None:
        """Start the head, with two CPUs."""
        more = f"--num-cpus=2 --temp-dir={self._folder} --ray-client-server-port={free_port()} --disable-usage-stats --no-monitor"
        head = documented("ray start")[0].replace("6379", self.address.rpartition(":")[2])
        self._starter.submit(self._start, "trainer", f"{head} {more}").result()

    def start_target(self) -> None:
        """Start the node that is measured."""
        self._starter.submit(self._start, "target", documented("ray start")[2].replace("HOST:6379", self.address)).result()

    def kill_target(self) -> None:
        """Kill the node that is measured, as a machine that loses its power."""
        _kill(self._nodes.pop("target"))

    def close(self) -> None:
        """End all of it."""
        for node in self._nodes.values():
            _kill(node)
        self._starter.shutdown()

    def _start(self, name: str, command: str) -> None:
        same = "--block --object-store-memory=80000000 --min-worker-port=0 --max-worker-port=0"
        program = [sys.executable, "-m", "ray.scripts.scripts", *shlex.split(f"{command} {same}")[1:]]
        environment = {**os.environ, **_QUICK, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        for _ in range(_TRIES):
            node = subprocess.Popen(
                program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=die_with_parent
            )
            said = ""
            assert node.stdout is not None
            for line in node.stdout:
                said += line
                if "Ray runtime started" in line:
                    self._nodes[name] = node
                    return
            _kill(node)
        raise AssertionError(f"{command}: {said}")


def _kill(node: subprocess.Popen[str]) -> None:
    """Kill a node's processes and see them gone."""
    try:
        processes = psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        processes = []
    node.kill()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.communicate()
    psutil.wait_procs(processes, timeout=30)


@contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """The cluster, running."""
    folder = Path(tempfile.mkdtemp(prefix="lps-ray-", dir="/tmp"))  # Ray's sockets need a short path
    nodes = TwoNodes(folder)
    try:
        nodes.start_trainer()
        nodes.start_target()
        yield nodes
    finally:
        nodes.close()
        shutil.rmtree(folder, ignore_errors=True)
