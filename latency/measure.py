"""The public way in: the latency of a network on a device, taken from the store or measured into it.

What is timed is the deployed form, in eval mode, at batch 1, ending at a chosen boundary. Nothing here knows LPS-Net:
any module is measured, and one that offers `scores(x)` or `deploy()` is asked for them.
torch is imported when a network is measured, not before.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from latency.backends import usable_backend
from latency.environment import available_cores, environment
from latency.lock import device_lock
from latency.measurement import Conditions, Measurement, TimingPlan
from latency.pace import Patience, slowness
from latency.protocols import Backend, BackendError, MeasurementFailed, Session, is_out_of_memory
from latency.state import OtherWork, machine_state
from latency.timing import sample
from latency.worker import Worker, WorkerLost

if TYPE_CHECKING:
    from torch import Tensor, nn

    from latency.store import Store


def measure(
    module: nn.Module,
    *,
    size: tuple[int, int],
    channels: int = 3,
    backend: str = "ort",
    device: str = "cpu",
    boundary: str = "scores",
    threads: int | None = None,
    precision: str = "fp32",
    cuda_graph: bool = True,
    plan: TimingPlan | None = None,
    subject: str = "",
    store: Store | None = None,
    worker: Worker | None = None,
) -> Measurement:
    """Latency of a network for one image (1, channels, *size).

    Args:
        module: a network in any form; it is left untouched. Its `deploy()` is used where it has one.
        size: (height, width) of the image in pixels.
        channels: of the image.
        backend: a name in `latency.backends.BACKENDS`.
        device: "cpu" or "cuda".
        boundary: "scores" (the module's `scores(x)`), "logits" (its `forward`) or "labels" (argmax of the logits).
        threads: CPU threads of the runtime; by default all cores the process may use.
        precision: "fp32", "tf32" or "fp16"; on a CPU only fp32.
        cuda_graph: on a GPU, record the runs once and launch them as one.
        plan: warm-up and sampling.
        subject: what to call the network in the record; needed with `store`.
        store: where a measurement under the same conditions is looked up first, and kept otherwise.
        worker: a process to measure in, with a time limit; by default this one, without.

    Raises:
        BackendError: an unknown or unusable backend.
        MeasurementFailed: the network could not be built or run, or disagrees with torch. With a store the failure is kept
            as a row and raised again without another try, unless memory ran out or the worker was lost.
    """
    runtime = usable_backend(backend, device)
    conditions = Conditions(
        backend=backend,
        device=device,
        shape=(1, channels, *size),
        boundary=boundary,
        threads=threads or available_cores(),
        precision=precision,
        cuda_graph=cuda_graph,
        plan=plan or TimingPlan(),
    )
    return _looked_up(runtime, module, conditions, subject, store, worker)


def measure_steady(module: nn.Module, *, subject: str, store: Store, attempts: int = 3, **conditions: Any) -> Measurement:
    """The latency of a network, taken anew up to `attempts` times while it is unstable: that says more of the machine.

    Every attempt is a row of the store; the first one answers `measure`. A plan that samples for no time asks for a quick look,
    not for a steady one.

    Returns:
        The attempt that is stable, else the fastest, as what disturbs adds time, under `subject`. Raises as `measure` does.
    """
    found = [measure(module, subject=subject, store=store, **conditions)]
    while not found[-1].verdict().stable and len(found) <= attempts and found[0].conditions.plan.min_s:
        found.append(measure(module, subject=f"{subject} attempt {len(found) + 1}", store=store, **conditions))
    best = found[-1] if found[-1].verdict().stable else min(found, key=lambda one: one.latency_ms)
    return dataclasses.replace(best, subject=subject)


def _looked_up(
    backend: Backend, module: nn.Module, conditions: Conditions, subject: str, store: Store | None, worker: Worker | None
) -> Measurement:
    """The measurement that the store holds, where there is one, else a new one that it then holds.

    A failure is held, too, unless it says as much about the moment as about the network.
    """
    if store is None:
        return _measure(backend, module, conditions, subject, worker)
    if not subject:
        raise ValueError("a measurement that is kept in a store needs a subject")
    here = environment(backend, conditions.device)
    known = store.find(subject, conditions, here)
    if known is None:
        try:
            known = _measure(backend, module, conditions, subject, worker)
            store.add(known)
        except MeasurementFailed as failure:
            if is_out_of_memory(failure) or isinstance(failure, WorkerLost):
                raise
            known = str(failure)
            store.add_failure(subject, conditions, here, _now(), known)
    if isinstance(known, str):
        raise MeasurementFailed(known)
    return known


_PATIENCE = Patience()


def _measure(backend: Backend, module: nn.Module, conditions: Conditions, subject: str, worker: Worker | None) -> Measurement:
    threads = conditions.threads
    with device_lock(conditions.device, alone=True):  # held here, so that a wait is no part of a worker's time
        if is_paced(conditions):
            _PATIENCE.settle(lambda: worker.call_twice(slowness, threads) if worker else slowness(threads), threads)
        if worker is None:
            return _measured(backend, module, conditions, subject)
        found: Measurement = worker.call_twice(_measured_there, module, conditions, subject)
        return found


def _measured_there(module: nn.Module, conditions: Conditions, subject: str) -> Measurement:
    return _measured(usable_backend(conditions.backend, conditions.device), module, conditions, subject)


def is_paced(conditions: Conditions) -> bool:
    """Whether the machine's pace is looked at: on a CPU, and for more than a quick look."""
    return conditions.device == "cpu" and conditions.plan.min_s > 0


@contextmanager
def failures_of(backend: Backend) -> Iterator[None]:
    """Turns whatever a backend raises, or reports that cannot be kept, into `MeasurementFailed` with its reason."""
    try:
        yield
    except (MeasurementFailed, BackendError):
        raise
    except Exception as error:  # code of another package: anything may go wrong there
        what = f"memory ran out: {error}" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        raise MeasurementFailed(f"backend {backend.name!r} failed: {what}") from error


def _measured(backend: Backend, module: nn.Module, conditions: Conditions, subject: str) -> Measurement:
    before = machine_state(conditions.device)
    start = time.perf_counter()
    with failures_of(backend), opened(backend, module, conditions) as session:
        load_s = time.perf_counter() - start
        paced = partial(slowness, conditions.threads) if is_paced(conditions) else None
        others = OtherWork()
        timing = sample(session, conditions.plan, paced)
        other_cores = others.cores()
        parts: Any = getattr(session, "parts_ms", dict)
        state = {"before": before, "after": machine_state(conditions.device), "other_cores": other_cores}
        if timing.slowness is not None:
            state |= {"slowness": timing.slowness, "slow_samples": len(timing.left_out_ms)}
        found = {**session.found, "state": state, "parts_ms": parts(), "runs_a_sample": timing.runs_a_sample}
        json.dumps(found)  # what cannot be kept is found out here
        return Measurement(
            subject=subject,
            conditions=conditions,
            environment=environment(backend, conditions.device),
            samples_ms=timing.samples_ms,
            clock=session.clock,
            warmup_runs=timing.warmup_runs,
            load_s=load_s,
            created=_now(),
            found=found,
        )


@contextmanager
def opened(backend: Backend, module: nn.Module, conditions: Conditions) -> Iterator[Session]:
    """A network's deployed form, loaded and found to agree with torch on a seeded image.

    Raises:
        MeasurementFailed: it cannot be built or run, or its output is not torch's.
    """
    import torch

    from latency.export import check_agreement, seeded_input

    timed = at_boundary(deployed(module), conditions.boundary)
    image = seeded_input(conditions.shape)
    try:
        with torch.inference_mode():
            expected = timed(torch.from_numpy(image)).numpy()
    except (ValueError, MemoryError, RuntimeError) as error:
        raise MeasurementFailed(f"torch cannot run the network: {error}") from error
    with backend.load(timed, conditions) as session:
        check_agreement(session.infer(image), expected, conditions.precision)
        session.found["output_shape"] = list(expected.shape)
        yield session


def deployed(module: nn.Module) -> nn.Module:
    """The module's deployed form on the CPU in eval mode, or a copy of the module where it offers no `deploy()`."""
    import copy

    deploy: Any = getattr(module, "deploy", None)
    result: nn.Module = deploy() if callable(deploy) else copy.deepcopy(module)
    return result.cpu().eval()


def at_boundary(module: nn.Module, boundary: str) -> nn.Module:
    """A module that ends where `boundary` says.

    Raises:
        MeasurementFailed: "scores" of a module that has no `scores` method.
    """
    from torch import nn as torch_nn

    if boundary == "scores" and not callable(getattr(module, "scores", None)):
        raise MeasurementFailed(f"{type(module).__name__} has no scores(x); measure it at the boundary logits or labels")

    class AtBoundary(torch_nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module: Any = module

        def forward(self, image: Tensor) -> Tensor:
            if boundary == "scores":
                scores: Tensor = self.module.scores(image)
                return scores
            logits: Tensor = self.module(image)
            return logits.argmax(1) if boundary == "labels" else logits

    return AtBoundary().eval()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
