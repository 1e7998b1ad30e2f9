"""Where a training runs: two processes with the same weights in both, half precision, compiled or not."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from lpsnet.errors import UserError
from lpsnet.network import LPSNet
from lpsnet.parallel import Accelerated, Alone, lane_for
from lpsnet.recipe import TrainRecipe
from lpsnet.training import fit, train
from tests.processes import Process
from tests.test_training import N0, few


def drive(out: Path, environment: dict[str, str]) -> None:
    """Train alone or, where the environment says so, as one of two, and write down what came of it."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    # With statistics of their own two halves would differ from the whole.
    still: dict[str, Any] = {"scale_min": 1, "scale_max": 1, "jitter": 0, "flip": False}
    recipe = TrainRecipe(iterations=4, batch_size=4, warmup_iterations=0, learning_rate=0.01, **still)
    lane = Accelerated("fp32", cpu=True) if "WORLD_SIZE" in os.environ else Alone("cpu")
    torch.manual_seed(0)
    network = LPSNet(N0, 11)
    start = network.head.weight.detach().flatten().tolist()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
            module.forward = lambda x, m=module: torch.nn.functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, False)
    curve = fit(network, few(), recipe, seed=1, lane=lane)
    shared = len(lane.share(range(5)))
    told = {"head": network.head.weight.detach().flatten().tolist(), "main": lane.is_main, "shared": shared, "curve": curve, "start": start}
    out.with_name(out.name + os.environ.get("RANK", "0")).write_text(json.dumps(told))
    lane.end()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_two_processes_share_a_batch_and_agree(tmp_path: Path) -> None:
    alone_here = Process(drive, tmp_path / "alone", {}, output=tmp_path / "printed")
    assert alone_here.ends() == 0, alone_here.printed()
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [
        Process(drive, tmp_path / "both", {**where, "RANK": rank, "LOCAL_RANK": rank}, output=tmp_path / f"printed{rank}")
        for rank in ("0", "1")
    ]
    assert [process.ends() for process in both] == [0, 0], [process.printed() for process in both]
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
