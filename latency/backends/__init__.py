"""The runtimes latency can be measured with, one read-only table."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING

from latency.measurement import DEVICES
from latency.protocols import BackendError

if TYPE_CHECKING:
    from latency.protocols import Backend


def _ort() -> Backend:
    from latency.backends.ort import OrtBackend

    return OrtBackend()


def _ort_tensorrt() -> Backend:
    from latency.backends.ort import TENSORRT, OrtBackend

    return OrtBackend("ort-tensorrt", TENSORRT)


def _torch() -> Backend:
    from latency.backends.pytorch import TorchBackend

    return TorchBackend()


def _trt(flavour: str) -> Backend:
    from latency.backends.trt import TrtBackend

    return TrtBackend(flavour)


BACKENDS: MappingProxyType[str, Callable[[], Backend]] = MappingProxyType(
    {
        "ort": _ort,
        "ort-tensorrt": _ort_tensorrt,
        "torch": _torch,
        "tensorrt": partial(_trt, "tensorrt"),
        "tensorrt-rtx": partial(_trt, "tensorrt-rtx"),
    }
)
"""Backend by name; calling a row imports its runtime."""

ENTRY_POINTS = "lps_search.backends"
"""Group of entry points by which other packages add backends: each names a callable that returns a `Backend`."""


def backend_names() -> tuple[str, ...]:
    """Every backend there is, those of other packages last."""
    return (*BACKENDS, *sorted(set(entry_points(group=ENTRY_POINTS).names) - set(BACKENDS)))


def make_backend(name: str) -> Backend:
    """The backend of that name, usable or not.

    Raises:
        BackendError: an unknown name (the message lists them), or an entry point that cannot be loaded.
    """
    if name in BACKENDS:
        return BACKENDS[name]()
    if name not in backend_names():
        raise BackendError(f"unknown backend {name!r}; there are: {', '.join(backend_names())}")
    entry, *others = entry_points(group=ENTRY_POINTS, name=name)
    if others:
        raise BackendError(f"two packages offer a backend {name!r}: {entry.value} and {others[0].value}; uninstall one of them")
    try:
        backend: Backend = entry.load()()
    except Exception as error:  # code of another package: anything may go wrong there
        raise BackendError(f"backend {name!r} of {entry.value} cannot be loaded: {type(error).__name__}: {error}") from error
    return backend


def usable_backend(name: str, device: str) -> Backend:
    """The backend of that name, ready for that device.

    Raises:
        BackendError: an unknown name or device (the message lists them), or a runtime that is not usable here.
    """
    backend = make_backend(name)
    if device not in DEVICES:
        raise BackendError(f"unknown device {device!r}; there are: {', '.join(DEVICES)}")
    if reason := backend.unavailable(device):
        raise BackendError(f"backend {name!r} cannot be used on {device}: {reason}")
    return backend
