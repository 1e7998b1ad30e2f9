"""Where a training runs: two processes with the same weights in both, half precision, compiled or not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lpsnet.errors import UserError
from lpsnet.parallel import Accelerated, Alone, lane_for
from lpsnet.recipe import TrainRecipe
from lpsnet.training import train
from tests.test_training import N0, few

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


def test_a_lane_is_alone_unless_asked_for_more() -> None:
    assert isinstance(lane_for("cpu"), Alone)
    assert isinstance(lane_for("cpu", "bf16"), Accelerated)


@pytest.mark.parametrize(
    ("precision", "compiler", "told"),
    [
        ("int8", "off", "unknown precision 'int8' of a training; there are: fp32, bf16, fp16"),
        ("fp32", "jit", "unknown compiler 'jit' of a training; there are: off, default, cuda-graphs"),
        ("fp32", "cuda-graphs", "CUDA graphs need a GPU, the training runs on cpu"),
    ],
)
def test_what_a_lane_cannot_do_is_said(precision: str, compiler: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        lane_for("cpu", precision, compiler)


def test_half_precision_trains_float_weights_and_repeats() -> None:
    recipe = TrainRecipe(iterations=30, batch_size=4, learning_rate=0.05, warmup_iterations=3, jitter=0.0, scale_min=1.0, scale_max=1.0)
    found = train(N0, few(), few(), recipe, precision="bf16")
    assert found.curve[-1][1] < 0.8 * found.curve[0][1]
    assert found.network.head.weight.dtype == torch.float32
    assert train(N0, few(), few(), recipe, precision="bf16").curve == found.curve
    assert train(N0, few(), few(), recipe).curve != found.curve


def test_a_compiled_network_is_the_same_function_with_the_same_weights() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    compiled, _ = lane_for("cpu", compiler="default").prepare(network, torch.optim.SGD(network.parameters()))
    images = torch.randn(2, 3, 8, 8)
    expected = torch.autograd.grad(network(images).square().sum(), list(network.parameters()))
    found = torch.autograd.grad(compiled(images).square().sum(), list(network.parameters()))
    assert compiled is not network
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4)
