"""Every runtime under one contract, the way in through `measure`, and latency tables of layers."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import statistics
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from latency import backends, measure
from latency.backends import BACKENDS, ENTRY_POINTS, backend_names, usable_backend
from latency.environment import available_cores, environment
from latency.export import OPSET
from latency.measure import measure_steady
from latency.measurement import DEVICES, Conditions, Measurement, TimingPlan, Verdict
from latency.protocols import Backend, BackendError, MeasurementFailed
from latency.store import Store
from lpsnet.network import LPSNet
from tests.backends import Small, Watched, normalised

# `latency.measure` as an attribute is the function; its module is needed to put another backend under it.
MEASURE = importlib.import_module("latency.measure")

QUICK = TimingPlan(warmup_s=0, min_samples=5, min_s=0, max_s=60)
CASES = [
    pytest.param(name, device, id=f"{name}-{device}", marks=[pytest.mark.gpu] if device == "cuda" else [])
    for name in BACKENDS
    for device in DEVICES
]
ON_A_CPU = ("ort", "torch")
SIDES = {"cpu": (32, 256), "cuda": (64, 1024)}
"""A small and a much bigger image by device: beyond the cost of a launch on a GPU, cheap on a CPU."""


def usable(name: str, device: str) -> Backend:
    try:
        return usable_backend(name, device)
    except BackendError as missing:
        pytest.skip(str(missing))


def conditions(name: str, device: str, size: tuple[int, int] = (32, 48), boundary: str = "logits", threads: int = 1) -> Conditions:
    return Conditions(backend=name, device=device, shape=(1, 3, *size), boundary=boundary, threads=threads, plan=QUICK)


@pytest.mark.parametrize(("name", "device"), CASES)
class TestEveryBackend:
    def test_output_agrees_with_torch_for_any_image(self, name: str, device: str) -> None:
        backend, module, at = usable(name, device), Small().eval(), conditions(name, device)
        with torch.inference_mode():
            images = [torch.randn(at.shape, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
            expected = [module(image).numpy() for image in images]
        with backend.load(module, at) as session:
            found = [session.infer(image.numpy()) for image in images]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.dtype == np.float32
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
        assert np.abs(expected[0] - expected[1]).max() > 1e-2

    def test_times_are_positive_and_finite(self, name: str, device: str) -> None:
        with usable(name, device).load(Small().eval(), conditions(name, device)) as session:
            times = [session.run_ms() for _ in range(10)]
        assert all(math.isfinite(value) and value > 0 for value in times)
        assert session.clock == ("perf_counter" if device == "cpu" or name == "ort" else "cuda-events")

    def test_a_much_bigger_image_takes_longer(self, name: str, device: str) -> None:
        backend = usable(name, device)
        module = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU()).eval()
        medians = []
        for side in SIDES[device]:
            with backend.load(module, conditions(name, device, (side, side))) as session:
                medians.append(statistics.median([session.run_ms() for _ in range(11)][4:]))
        small, big = SIDES[device]
        assert (big / small) ** 2 >= 16
        assert medians[1] > 2 * medians[0]

    def test_what_the_runtime_reports_can_be_written_as_json(self, name: str, device: str) -> None:
        with usable(name, device).load(Small().eval(), conditions(name, device)) as session:
            assert session.found
            assert json.loads(json.dumps(session.found)) == session.found

    def test_versions_name_the_runtime_and_can_be_written_as_json(self, name: str, device: str) -> None:
        versions = usable(name, device).versions()
        assert json.loads(json.dumps(versions)) == versions
        assert versions[{"ort": "onnxruntime"}.get(name, name)]

    def test_the_threads_of_torch_are_put_back(self, name: str, device: str) -> None:
        backend, before = usable(name, device), torch.get_num_threads()
        other = 1 if before > 1 else 2
        with backend.load(Small().eval(), conditions(name, device, threads=other)):
            pass
        assert torch.get_num_threads() == before
        with pytest.raises(KeyError), backend.load(Small().eval(), conditions(name, device, threads=other)):
            raise KeyError
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ON_A_CPU)
def test_a_cpu_runtime_uses_the_threads_asked_for(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[onnxruntime.SessionOptions] = []
    real = onnxruntime.InferenceSession

    def spy(graph: bytes, given: onnxruntime.SessionOptions, **rest: Any) -> onnxruntime.InferenceSession:
        options.append(given)
        return real(graph, given, **rest)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    with BACKENDS[name]().load(Small().eval(), conditions(name, "cpu", threads=threads)):
        in_force = {"torch": torch.get_num_threads, "ort": lambda: options[0].intra_op_num_threads}[name]()
    assert in_force == threads


def test_ort_runs_one_operator_at_a_time_with_all_optimisations(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[onnxruntime.SessionOptions] = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda graph, given, **rest: options.append(given) or real(graph, given, **rest))
    with BACKENDS["ort"]().load(Small().eval(), conditions("ort", "cpu")) as session:
        assert session.found == {"providers": ["CPUExecutionProvider"], "opset": OPSET}
    assert options[0].execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options[0].graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_a_graph_that_ort_cannot_load_fails_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latency.backends.ort.graph_for", lambda module, conditions: b"no graph")
    with (
        pytest.raises(MeasurementFailed, match="ONNX Runtime cannot load the graph: "),
        BACKENDS["ort"]().load(Small(), conditions("ort", "cpu")),
    ):
        pass


class TestChoosingABackend:
    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(BackendError, match="unknown backend 'openvino'; there are: ort, ort-tensorrt, torch"):
            measure(Small(), size=(32, 48), backend="openvino")

    def test_an_unknown_device_lists_the_known_ones(self) -> None:
        with pytest.raises(BackendError, match="unknown device 'tpu'; there are: cpu, cuda"):
            measure(Small(), size=(32, 48), device="tpu")

    def test_an_unknown_boundary_lists_the_known_ones(self) -> None:
        with pytest.raises(ValueError, match="unknown boundary 'pixels'; there are: scores, logits, labels"):
            measure(Small(), size=(32, 48), backend="torch", boundary="pixels")

    def test_torch_without_a_gpu_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(BackendError, match=r"backend 'torch' cannot be used on cuda: .*no CUDA device; .* needed"):
            usable_backend("torch", "cuda")

    def test_ort_without_a_provider_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
        with pytest.raises(
            BackendError, match=r"backend 'ort' cannot be used on cuda: .*CUDAExecutionProvider; pip install onnxruntime-gpu"
        ):
            usable_backend("ort", "cuda")

    def test_another_package_adds_a_backend_by_entry_point(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Other:
            name = "other"

            def unavailable(self, device: str) -> str | None:
                return None if device == "cpu" else "it has no GPU"

        def broken() -> Backend:
            raise RuntimeError("its library is missing")

        found = EntryPoints(EntryPoint(name, f"other:{name}", ENTRY_POINTS) for name in ("other", "broken", "ort"))
        monkeypatch.setattr(backends, "entry_points", lambda **chosen: found.select(**chosen))
        monkeypatch.setattr(EntryPoint, "load", lambda self: {"other": Other, "broken": broken}[self.name])
        assert backend_names() == (*BACKENDS, "broken", "other")
        assert isinstance(usable_backend("other", "cpu"), Other)
        assert usable_backend("ort", "cpu").name == "ort"  # what is built in is not replaced
        with pytest.raises(BackendError, match="cannot be used on cuda: it has no GPU"):
            usable_backend("other", "cuda")
        with pytest.raises(BackendError, match=r"'broken' of other:broken cannot be loaded: RuntimeError: its library is missing"):
            usable_backend("broken", "cpu")
        with pytest.raises(BackendError, match="there are: ort, ort-tensorrt, torch, tensorrt, tensorrt-rtx, broken, other"):
            usable_backend("none", "cpu")

    def test_the_table_of_backends_is_read_only(self) -> None:
        with pytest.raises(TypeError):
            BACKENDS["mine"] = BACKENDS["ort"]  # type: ignore[index]
        assert all(BACKENDS[name]().name == name for name in BACKENDS)


class TestMeasure:
    @pytest.mark.parametrize("name", ON_A_CPU)
    @pytest.mark.parametrize(("boundary", "shape"), [("scores", [1, 4, 8, 12]), ("logits", [1, 4, 32, 48]), ("labels", [1, 32, 48])])
    def test_the_timed_graph_ends_where_the_boundary_says(self, name: str, boundary: str, shape: list[int]) -> None:
        result = measure(Small(), size=(32, 48), backend=name, boundary=boundary, threads=2, plan=QUICK, subject="small")
        assert result.found["output_shape"] == shape
        assert result.conditions == conditions(name, "cpu", boundary=boundary, threads=2)
        assert result.environment == environment(BACKENDS[name](), "cpu")
        assert (result.subject, len(result.samples_ms), result.warmup_runs) == ("small", 5, 3)
        assert result.load_s > 0
        assert result.found == json.loads(json.dumps(result.found))

    @pytest.mark.parametrize("name", ON_A_CPU)
    def test_a_network_in_training_form_is_timed_deployed_and_left_untouched(self, name: str, watch: Callable[..., Watched]) -> None:
        watched = watch(name)
        network = normalised(LPSNet("N0", 5)).train()
        network.paths[0].eval()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        flags = [module.training for module in network.modules()]
        measure(network, size=(64, 64), backend=name, plan=QUICK)
        assert [module.training for module in network.modules()] == flags
        after = network.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert not network.deployed
        (timed,) = watched.loads
        assert not any(isinstance(module, nn.BatchNorm2d) for module in timed.modules())
        assert sum(isinstance(module, nn.Conv2d) for module in timed.modules()) == 6
        assert not any(module.training for module in timed.modules())

    def test_a_module_that_cannot_be_deployed_is_timed_in_eval_mode_on_a_copy(self, watch: Callable[..., Watched]) -> None:
        watched = watch("torch")
        module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
        before = {key: value.clone() for key, value in module.state_dict().items()}
        measure(module, size=(8, 8), backend="torch", boundary="logits", plan=QUICK)
        assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
        assert all(part.training for part in module.modules())
        assert not any(part.training for part in watched.loads[0].modules())

    def test_all_cores_are_used_where_no_threads_are_named(self) -> None:
        assert measure(Small(), size=(32, 48), backend="torch", plan=QUICK).conditions.threads == available_cores()

    def test_other_numbers_of_channels_can_be_timed(self) -> None:
        result = measure(nn.Conv2d(7, 2, 1), size=(8, 8), channels=7, backend="torch", boundary="logits", plan=QUICK)
        assert result.conditions.shape == (1, 7, 8, 8)
        assert result.found["output_shape"] == [1, 2, 8, 8]

    def test_what_the_store_holds_is_not_measured_again(self, watch: Callable[..., Watched], store: Store) -> None:
        watched = watch("torch")
        how: dict[str, Any] = {"size": (32, 48), "backend": "torch", "plan": QUICK, "store": store}
        first = measure(Small(), subject="small", **how)
        assert len(watched.loads) == 1
        assert measure(Small(), subject="small", **how) == first
        assert len(watched.loads) == 1
        measure(Small(), subject="another", **how)
        measure(Small(), subject="small", boundary="labels", **how)
        assert len(watched.loads) == 3
        assert len(store.all()) == 3

    def test_what_is_unstable_is_taken_anew_and_else_the_fastest_attempt_counts(
        self, watch: Callable[..., Watched], store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        watched = watch("torch")
        how: dict[str, Any] = {"size": (32, 48), "backend": "torch", "plan": TimingPlan(min_s=1e-3), "store": store, "subject": "small"}
        monkeypatch.setattr(Measurement, "verdict", lambda self: Verdict(stable=self.subject == "small attempt 2", reasons=()))
        found = measure_steady(Small(), **how)
        assert len(watched.loads) == 2 and found.subject == "small"
        assert found.samples_ms == store.all()[1].samples_ms
        monkeypatch.setattr(Measurement, "verdict", lambda self: Verdict(stable=False, reasons=()))
        fastest = measure_steady(Small(), **how, attempts=2)
        assert [one.subject for one in store.all()] == ["small", "small attempt 2", "small attempt 3"]
        assert fastest.latency_ms == min(one.latency_ms for one in store.all())

    def test_what_torch_took_before_it_chose_a_layout_is_no_answer(self, watch: Callable[..., Watched], store: Store) -> None:
        watched = watch("torch")
        how: dict[str, Any] = {"size": (32, 48), "backend": "torch", "plan": QUICK, "subject": "small"}
        found = measure(Small(), **how)
        assert found.summary()["layout"] == found.found["layout"] in found.environment.versions["layouts"]
        before = dataclasses.replace(found.environment, versions={"torch": found.environment.versions["torch"]})
        store.add(dataclasses.replace(found, environment=before, found={}))
        again = measure(Small(), store=store, **how)
        assert len(watched.loads) == 2 and again.found["layout"] and len(store.all()) == 2

    def test_a_failure_is_kept_and_raised_again_without_another_try(self, watch: Callable[..., Watched], store: Store) -> None:
        watched = watch("torch", failure=MeasurementFailed("no kernel for Conv on cpu"))
        how: dict[str, Any] = {"size": (32, 48), "backend": "torch", "threads": 1, "plan": QUICK, "subject": "small", "store": store}
        for _ in range(2):
            with pytest.raises(MeasurementFailed, match=r"^no kernel for Conv on cpu$"):
                measure(Small(), **how)
        assert len(watched.loads) == 1
        at, here = conditions("torch", "cpu", boundary="scores"), environment(watched, "cpu")
        assert store.find("small", at, here) == "no kernel for Conv on cpu"

    @pytest.mark.parametrize("cause", [None, MemoryError()])
    def test_a_network_for_which_memory_ran_out_is_tried_again(
        self, cause: BaseException | None, watch: Callable[..., Watched], store: Store
    ) -> None:
        failure = MeasurementFailed("cannot run the network" + (": out of memory, 3 GB asked for" if cause is None else ""))
        failure.__cause__ = cause
        watched = watch("torch", failure=failure)
        how: dict[str, Any] = {"size": (32, 48), "backend": "torch", "threads": 1, "plan": QUICK, "subject": "small", "store": store}
        at, here = conditions("torch", "cpu", boundary="scores"), environment(watched, "cpu")
        for _ in range(2):
            with pytest.raises(MeasurementFailed, match="cannot run the network"):
                measure(Small(), **how)
            assert store.find("small", at, here) is None
        assert len(watched.loads) == 2
        watch("torch")
        found = measure(Small(), **how)
        assert store.find("small", at, here) == found

    @pytest.mark.parametrize("error", [ValueError("odd"), TypeError("found"), KeyError("x")])
    def test_whatever_a_backend_raises_is_a_failure_that_is_kept(
        self, error: Exception, watch: Callable[..., Watched], store: Store
    ) -> None:
        watched = watch("torch", failure=error)
        for _ in range(2):
            with pytest.raises(MeasurementFailed, match=f"backend 'torch' failed: {type(error).__name__}"):
                measure(Small(), size=(32, 48), backend="torch", plan=QUICK, subject="small", store=store)
        assert len(watched.loads) == 1

    def test_a_report_that_cannot_be_kept_and_an_unknown_clock_are_failures(self, watch: Callable[..., Watched], store: Store) -> None:
        for change in ({"found": {"odd": b"bytes"}}, {"clock": "wall"}):
            watch("torch", changes=change)
            with pytest.raises(MeasurementFailed, match=r"backend 'torch' failed: (TypeError|ValueError)"):
                measure(Small(), size=(32, 48), backend="torch", plan=QUICK, subject=str(change), store=store)
        assert not store.all()

    def test_an_interruption_is_not_kept_as_a_failure(self, watch: Callable[..., Watched], store: Store) -> None:
        watch("torch", failure=KeyboardInterrupt())
        how: dict[str, Any] = {"size": (32, 48), "backend": "torch", "plan": QUICK, "subject": "small", "store": store}
        with pytest.raises(KeyboardInterrupt):
            measure(Small(), **how)
        watch("torch")
        assert measure(Small(), **how).subject == "small"

    def test_an_output_that_disagrees_with_torch_fails(self, watch: Callable[..., Watched], store: Store) -> None:
        watch("torch", bias=1.0)
        with pytest.raises(MeasurementFailed, match="the output differs from torch by"):
            measure(Small(), size=(32, 48), backend="torch", plan=QUICK, subject="small", store=store)
        assert store.all() == []

    def test_scores_of_a_module_without_them_fail_and_the_other_boundaries_work(self, store: Store) -> None:
        module = nn.Conv2d(3, 4, 1)
        for _ in range(2):
            with pytest.raises(MeasurementFailed, match=r"Conv2d has no scores\(x\); measure it at the boundary logits or labels"):
                measure(module, size=(8, 8), backend="torch", plan=QUICK, subject="conv", store=store)
        assert measure(module, size=(8, 8), backend="torch", boundary="labels", plan=QUICK).found["output_shape"] == [1, 8, 8]

    def test_a_store_needs_a_subject(self, store: Store) -> None:
        with pytest.raises(ValueError, match="needs a subject"):
            measure(Small(), size=(32, 48), backend="torch", plan=QUICK, store=store)

    def test_an_input_too_small_for_a_path_fails_with_the_least_size(self) -> None:
        with pytest.raises(MeasurementFailed, match="the least size that works is 4x4"):
            measure(LPSNet("LPS-Net-S", 3), size=(2, 2), backend="torch", plan=QUICK)

    @pytest.mark.parametrize("runs_before", [0, 1])
    def test_a_network_that_cannot_be_run_fails_and_is_kept(self, runs_before: int, store: Store) -> None:
        class Breaking(nn.Module):
            runs = 0

            def forward(self, images: Tensor) -> Tensor:
                self.runs += 1
                if self.runs > runs_before:
                    raise RuntimeError("expected 4 channels, got 3")
                return images

        how: dict[str, Any] = {"size": (8, 8), "backend": "torch", "boundary": "logits", "plan": QUICK, "store": store}
        with pytest.raises(MeasurementFailed, match="expected 4 channels, got 3"):
            measure(Breaking(), subject="big", **how)
        with pytest.raises(MeasurementFailed, match="expected 4 channels, got 3"):
            measure(nn.Identity(), subject="big", **how)
