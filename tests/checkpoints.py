"""What the tests of checkpoints share: a small network and the check that a file is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lpsnet.checkpoint import CheckpointError, load
from lpsnet.network import LPSNet

TEXT = "B1-2-1-2-2_C4-8-8-12-12_R6-2"
NAMES = ("road", "sky", "tree")
SIZE = (64, 96)
IMAGES = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def trained(text: str = TEXT, *, branches: bool = True) -> LPSNet:
    """A network whose running statistics are not the initial ones, in eval mode."""
    torch.manual_seed(0)
    network = LPSNet(text, len(NAMES), branches=branches).train()
    with torch.no_grad():
        network.scores(2 * IMAGES + 1)
    return network.eval()


def scores(network: LPSNet) -> Tensor:
    with torch.inference_mode():
        return network.scores(IMAGES)


def refusal(source: str | Path, *parts: str, architecture: str | None = None) -> str:
    """The message with which `load` refuses `source`; it holds all `parts` and, being shown on one line, no line break."""
    with pytest.raises(CheckpointError) as caught:
        load(source, architecture)
    message = str(caught.value)
    for part in (str(source), *parts):
        assert part in message, message
    assert "\n" not in message, message
    return message
