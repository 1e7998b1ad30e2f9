"""LPS-Net segmentation networks: architectures, networks, data, training and checkpoints.

    from lpsnet import Architecture, LPSNet, load

Importing the package imports nothing heavy; torch is imported when a name that needs it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lpsnet.architecture import NAMED, Architecture, ArchitectureError
from lpsnet.errors import UserError

if TYPE_CHECKING:
    from lpsnet.checkpoint import load, save
    from lpsnet.hub import HubNetwork
    from lpsnet.network import LPSNet
    from lpsnet.tensors import CheckpointError
    from lpsnet.zoo import build

_LAZY = {
    "LPSNet": "lpsnet.network",
    "build": "lpsnet.zoo",
    "CheckpointError": "lpsnet.tensors",
    "load": "lpsnet.checkpoint",
    "save": "lpsnet.checkpoint",
    "HubNetwork": "lpsnet.hub",
}

__all__ = ["NAMED", "Architecture", "ArchitectureError", "CheckpointError", "HubNetwork", "LPSNet", "UserError", "build", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'lpsnet' has no attribute {name!r}")
