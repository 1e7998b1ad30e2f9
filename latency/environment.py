"""What device this is and which software it runs, read from the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from latency.measurement import Environment
from latency.protocols import Backend


def available_cores() -> int:
    """CPU cores this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def package_version(name: str) -> str | None:
    """Version of an installed package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment(backend: Backend, device: str) -> Environment:
    """The environment in which `backend` would measure on `device` now."""
    name, driver = _gpu() if device == "cuda" else (cpu_name(), "")
    return Environment(device=name, cores=available_cores(), driver=driver, versions=backend.versions())


def cpu_name() -> str:
    """The processor's model name, or the architecture where the system does not tell."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> tuple[str, str]:
    import torch

    driver = Path("/proc/driver/nvidia/version")
    release = driver.read_text().split("\n", 1)[0].strip() if driver.exists() else "unknown driver"
    return torch.cuda.get_device_name(), f"{release}; CUDA {torch.version.cuda}"
