"""How much memory loading and running a network takes."""

from __future__ import annotations

from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Growth:
    """Memory taken since its creation: on a CPU by this process at its peak, on a GPU on the device, by anybody.

    On a CPU the process should be one of its own: what was freed before is taken again unseen. The GPU path is not yet
    executed on a GPU.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        if device == "cpu":
            _forget_peak()
        self._before = _used(device, "VmRSS")

    def bytes(self) -> int | None:
        """So far; None where the system does not tell."""
        now = _used(self._device, "VmHWM")
        return None if now is None or self._before is None else max(0, now - self._before)


def _forget_peak() -> None:
    """Let the peak begin anew; where the system refuses, that of the start of the process remains."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def _used(device: str, field: str) -> int | None:
    """Bytes in use on a GPU, or those of a field of this process's status."""
    if device == "cuda":
        import torch

        torch.cuda.init()  # type: ignore[no-untyped-call]
        free, total = torch.cuda.mem_get_info()
        return total - free
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
