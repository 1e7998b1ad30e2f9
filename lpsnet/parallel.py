"""On how many devices and in which precision a training runs: alone in single precision, or as accelerate says.

The same training loop runs over either. Processes started by `accelerate launch` or `torchrun` each take their share of
a batch; gradients are averaged over them, and batch normalisation is synchronised between GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

PRECISIONS = ("fp32", "bf16", "fp16")


class Lane(Protocol):
    """Where a training runs."""

    device: torch.device
    is_main: bool
    """Whether this process writes files and shows progress."""

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """What to call forward and to step instead of these."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """In which the forward pass runs."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients."""
        ...

    def clip(self, parameters: Sequence[Tensor], norm: float) -> None:
        """Shorten the gradient to a norm."""
        ...

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch."""
        ...

    def end(self) -> None:
        """Wait for the other processes, and part."""
        ...


class Alone:
    """One process, one device, single precision."""

    is_main = True

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """See `Lane.prepare`."""
        return network, optimizer

    def autocast(self) -> AbstractContextManager[Any]:
        """See `Lane.autocast`."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """See `Lane.backward`."""
        loss.backward()  # type: ignore[no-untyped-call]

    def clip(self, parameters: Sequence[Tensor], norm: float) -> None:
        """See `Lane.clip`."""
        nn.utils.clip_grad_norm_(parameters, norm)

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """See `Lane.share`."""
        return indices

    def end(self) -> None:
        """See `Lane.end`."""


class Accelerated:
    """As many processes as were launched, in a precision, through accelerate.

    Args:
        precision: one of `PRECISIONS`.
        cpu: stay on the CPU where a GPU is.
    """

    def __init__(self, precision: str = "fp32", *, cpu: bool = False) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=cpu)
        self.device = self._accelerator.device
        self.is_main = self._accelerator.is_main_process

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """See `Lane.prepare`; the network's batch normalisations are exchanged in place for synchronised ones between GPUs."""
        if self._accelerator.num_processes > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        prepared: tuple[nn.Module, Any] = self._accelerator.prepare(network, optimizer)
        return prepared

    def autocast(self) -> AbstractContextManager[Any]:
        """See `Lane.autocast`."""
        context: AbstractContextManager[Any] = self._accelerator.autocast()
        return context

    def backward(self, loss: Tensor) -> None:
        """See `Lane.backward`."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Sequence[Tensor], norm: float) -> None:
        """See `Lane.clip`."""
        self._accelerator.clip_grad_norm_(parameters, norm)

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """See `Lane.share`."""
        return indices[self._accelerator.process_index :: self._accelerator.num_processes]

    def end(self) -> None:
        """See `Lane.end`."""
        self._accelerator.wait_for_everyone()
        self._accelerator.end_training()
