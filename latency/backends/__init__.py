"""The runtimes latency can be measured with, one read-only table."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

from latency.measurement import DEVICES
from latency.protocols import BackendError

if TYPE_CHECKING:
    from latency.protocols import Backend


def _ort() -> Backend:
    from latency.backends.ort import OrtBackend

    return OrtBackend()


def _torch() -> Backend:
    from latency.backends.pytorch import TorchBackend

    return TorchBackend()


BACKENDS: MappingProxyType[str, Callable[[], Backend]] = MappingProxyType({"ort": _ort, "torch": _torch})
"""Backend by name; calling a row imports its runtime."""


def usable_backend(name: str, device: str) -> Backend:
    """The backend of that name, ready for that device.

    Raises:
        BackendError: an unknown name or device (the message lists them), or a runtime that is not usable here.
    """
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; there are: {', '.join(BACKENDS)}")
    if device not in DEVICES:
        raise BackendError(f"unknown device {device!r}; there are: {', '.join(DEVICES)}")
    backend = BACKENDS[name]()
    if reason := backend.unavailable(device):
        raise BackendError(f"backend {name!r} cannot be used on {device}: {reason}")
    return backend
