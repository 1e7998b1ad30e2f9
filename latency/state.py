"""What else goes on on the machine while something is timed: other processes, clocks, temperature, power.

Nothing here changes a setting. What the machine does not tell is left out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_STAT = Path("/proc/stat")


def machine_state(device: str) -> dict[str, Any]:
    """The state of "cpu" or "cuda" now: load and governor, or clocks, throttle reasons, power, temperature, processes."""
    return _gpu_state() if device == "cuda" else _cpu_state()


def compute_capability() -> str | None:
    """Of the first GPU, such as "8.6"; None where there is none or NVML does not tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(pynvml.nvmlDeviceGetHandleByIndex(0)))
    except Exception:  # no package, no driver, no device: NVML has an error type for each
        return None


class OtherWork:
    """Measures how many cores other processes keep busy between its creation and `cores()`."""

    def __init__(self) -> None:
        self._busy = _busy_seconds()
        self._own = time.process_time()
        self._start = time.perf_counter()

    def cores(self) -> float | None:
        """Mean number of cores used by others so far, None where the system does not tell."""
        now = _busy_seconds()
        elapsed = time.perf_counter() - self._start
        if now is None or self._busy is None or elapsed <= 0:
            return None
        return max(0.0, (now - self._busy - (time.process_time() - self._own)) / elapsed)


def _busy_seconds() -> float | None:
    """Seconds all cores together spent in anything but idling and waiting for input or output."""
    try:
        fields = [int(text) for text in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _wait, *interrupts = fields
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _cpu_state() -> dict[str, Any]:
    state: dict[str, Any] = {"load_1min": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    if _GOVERNOR.exists():
        state["governor"] = _GOVERNOR.read_text().strip()
    return state


def _gpu_state() -> dict[str, Any]:
    """Read through NVML; not yet executed on a GPU."""
    try:
        import pynvml
    except ImportError:
        return {"missing": "nvidia-ml-py is not installed: clocks, throttling and power are unknown"}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return {
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "sm_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "throttle_reasons": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            "power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            "other_processes": sum(p.pid != os.getpid() for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        }
    except pynvml.NVMLError as error:
        return {"missing": f"NVML: {error}"}
