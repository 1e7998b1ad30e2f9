"""Training in two processes on a CPU: the same weights in both, near those of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = """
import json, os, sys, torch
import torch.distributed as dist
torch.set_num_threads(1)
from lpsnet.network import LPSNet
from lpsnet.parallel import Accelerated, Alone
from lpsnet.recipe import TrainRecipe
from lpsnet.training import fit
from tests.test_training import N0, few

if __name__ == "__main__":
    # With statistics of their own two halves would differ from the whole.
    still = {"scale_min": 1, "scale_max": 1, "jitter": 0, "flip": False}
    recipe = TrainRecipe(iterations=4, batch_size=4, warmup_iterations=0, learning_rate=0.01, **still)
    lane = Accelerated("fp32", cpu=True) if "WORLD_SIZE" in os.environ else Alone("cpu")
    torch.manual_seed(0)
    network = LPSNet(N0, 11)
    start = network.head.weight.detach().flatten().tolist()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            module.track_running_stats = True
            module.forward = lambda x, m=module: torch.nn.functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, False)
    curve = fit(network, few(), recipe, seed=1, lane=lane)
    shared = len(lane.share(range(5)))
    told = {"head": network.head.weight.detach().flatten().tolist(), "main": lane.is_main, "shared": shared, "curve": curve, "start": start}
    with open(sys.argv[1] + os.environ.get("RANK", "0"), "w") as file:
        json.dump(told, file)
    lane.end()
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_two_processes_share_a_batch_and_agree(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    here = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), str(tmp_path / "alone")], env=here, check=True, timeout=120)
    port = str(free_port())
    launched = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "both")],
            env={**here, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=150) for process in launched] == [0, 0]
    alone, first, second = (json.loads((tmp_path / name).read_text()) for name in ("alone0", "both0", "both1"))
    assert first["head"] == second["head"] and (first["main"], second["main"]) == (True, False)
    assert first["shared"] + second["shared"] == alone["shared"] == 5
    assert first["start"] == alone["start"] != alone["head"]
    assert first["head"] == pytest.approx(alone["head"], abs=1e-5)
