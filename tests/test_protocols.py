"""The ways a runtime can fail: whether memory ran out is told from the type, the message and the cause."""

from __future__ import annotations

import pytest
import torch

from latency.protocols import MeasurementFailed, is_out_of_memory


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    """The error with a chain of causes."""
    last = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("Failed to allocate memory for requested buffer of size 4096"),
        RuntimeError("std::bad_alloc"),
        caused(MeasurementFailed("cannot be run"), MemoryError()),
        caused(MeasurementFailed("cannot be run"), RuntimeError("while folding"), RuntimeError("CUDA Out Of Memory")),
    ],
    ids=repr,
)
def test_memory_that_ran_out_is_told(error: BaseException) -> None:
    assert is_out_of_memory(error)


def test_torch_out_of_host_memory_is_told() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)  # more than any address space
    assert is_out_of_memory(refused.value)


@pytest.mark.parametrize(
    "error",
    [None, RuntimeError("shapes do not match"), KeyError("memory"), caused(MeasurementFailed("cannot be run"), ValueError("no kernel"))],
    ids=repr,
)
def test_other_failures_are_not_taken_for_it(error: BaseException | None) -> None:
    assert not is_out_of_memory(error)
