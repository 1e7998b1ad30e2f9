"""On how many devices and in which precision a training runs: alone in single precision, or as accelerate says.

The same training loop runs over either. Processes started by `accelerate launch` or `torchrun` each take their share of
a batch; gradients are averaged over them, and batch normalisation is synchronised between GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lpsnet.errors import UserError
from lpsnet.recipe import PRECISIONS

COMPILERS = ("off", "default", "cuda-graphs")
"""How a network is compiled for training: not, by `torch.compile`, or by it with CUDA graphs around its kernels."""


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

    def __init__(self, device: str | torch.device = "cpu", *, compiler: str = "off") -> None:
        self.device = torch.device(device)
        self._compiler = compiler

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """See `Lane.prepare`."""
        return _compiled(network, self._compiler), optimizer

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
        compiler: one of `COMPILERS`.
    """

    def __init__(self, precision: str = "fp32", *, cpu: bool = False, compiler: str = "off") -> None:
        from accelerate import Accelerator

        self._compiler = compiler

        self._accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, cpu=cpu)
        self.device = self._accelerator.device
        self.is_main = self._accelerator.is_main_process

    def prepare(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """See `Lane.prepare`; the network's batch normalisations are exchanged in place for synchronised ones between GPUs."""
        if self._accelerator.num_processes > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        prepared, stepper = self._accelerator.prepare(network, optimizer)
        return _compiled(prepared, self._compiler), stepper

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


def lane_for(device: str | torch.device, precision: str = "fp32", compiler: str = "off") -> Lane:
    """Where a training on a device runs, in a precision; with more than one process where they were launched.

    Raises:
        UserError: an unknown precision or compiler, or fp16 or CUDA graphs without a GPU.
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r} of a training; there are: {', '.join(PRECISIONS)}")
    if compiler not in COMPILERS:
        raise UserError(f"unknown compiler {compiler!r} of a training; there are: {', '.join(COMPILERS)}")
    kind = torch.device(device).type
    if precision == "fp16" and kind == "cpu":
        raise UserError("fp16 trains on a GPU; on a CPU take fp32, or bf16 where it is faster")
    if compiler == "cuda-graphs" and kind != "cuda":
        raise UserError(f"CUDA graphs need a GPU, the training runs on {kind}; compile by default or not at all")
    if precision == "fp32" and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone(device, compiler=compiler)
    return Accelerated(precision, cpu=kind == "cpu", compiler=compiler)


def _compiled(network: nn.Module, compiler: str) -> nn.Module:
    if compiler == "off":
        return network
    compiled: nn.Module = torch.compile(network, mode="reduce-overhead" if compiler == "cuda-graphs" else None)  # type: ignore[assignment]
    return compiled
