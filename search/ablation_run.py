"""An ablation while it runs: latencies through the store, widths fitted, every network trained with every seed and scored.

In its folder, besides the files of its report (`ablation_report.py`):

study.json (what it is)  record.jsonl (what was found, as it accrues)  trainings/ (a folder a training)

What fails is a fact, too: its row says why.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency.backends import usable_backend
from latency.environment import environment
from latency.measure import measure_steady
from latency.measurement import Environment
from latency.protocols import MeasurementFailed, is_out_of_memory
from latency.store import Store
from latency.told import parse_json
from latency.worker import Worker, WorkerLost
from lpsnet.architecture import Architecture
from lpsnet.data import DataSpec, data_name, native_size, open_split
from lpsnet.errors import TrainingFailed, UserError
from lpsnet.parallel import lane_for
from lpsnet.resume import differing
from lpsnet.zoo import build
from search.ablation import AblationPlan, Ask, Placed, rows_of_plan
from search.apart import Call, run_apart, run_here
from search.compare_record import ReadRecord, Record
from search.executor import subject
from search.observer import Observer
from search.run import make_folder, write_json
from search.training_folder import read_curve
from search.training_run import Means, TrainPlan, run_training

STUDY, TRAININGS = "study.json", "trainings"
SAVE_S = 60.0
MAY_CHANGE = ("kinds", "seeds", "fit")
"""What a further call on the same folder may ask for: more of the same."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What is known of an ablation.

    Args:
        plan: what it is.
        environment: of its latencies.
        placed: the rows.
        trainings: facts by network and seed: `miou_percent` and `seconds`, or `failure`.
    """

    plan: AblationPlan
    environment: Environment
    placed: tuple[Placed, ...]
    trainings: dict[tuple[str, int], dict[str, Any]]


def run_ablation(
    plan: AblationPlan,
    out: Path,
    store: Store,
    observer: Observer,
    on_part: Callable[[Ablation], None],
    *,
    limit_s: float = 0.0,
    parallel: int = 1,
) -> Ablation:
    """Measure and train what is missing; a call that is cut short goes on where it stopped.

    Args:
        plan: what and how.
        out: the folder.
        store: this machine's latency store; what it holds is not measured again.
        observer: told of progress.
        on_part: given what is known, once widths are fitted and after each training.
        limit_s: seconds a single latency may take, in a process of its own; 0 to measure in this one, without a limit.
        parallel: trainings at a time, in processes that share the threads.

    Raises:
        BackendError: an unknown or unusable backend.
        UserError: a folder of another ablation, or a data set, device or precision that cannot be used.
    """
    at = plan.conditions
    here = environment(usable_backend(at.backend, at.device), at.device)
    lane_for(plan.training_device, plan.precision)
    spec = DataSpec.parse(plan.data)
    for split in ("train", "val"):
        open_split(spec, split, native_size(spec))
    make_folder(out)
    record, worker = Record(out), Worker(limit_s) if limit_s else None
    try:
        whole = _claim(out, plan, here, record)
        ask = _asker(plan, record, store, worker, observer)
        placed = tuple(rows_of_plan(plan, ask, lambda done, total, kind: observer.work("latencies", done, total, kind)))
        if worker is not None:
            worker.close()
        _train_all(plan, _pairs(plan, placed), out, record, observer, parallel, lambda: on_part(_known(whole, here, record)))
        return _known(whole, here, record)
    finally:
        if worker is not None:
            worker.close()
        record.close()


def read_ablation(table: str, out: Path) -> Ablation:
    """What has accrued in a folder, also while it grows or on another machine.

    Raises:
        UserError: the folder holds no such ablation.
    """
    plan, where = _read_study(out)
    if plan.table != table:
        raise UserError(f"{out} holds an ablation of {plan.table}, not of {table}")
    return _known(plan, where, ReadRecord(out))


def _known(plan: AblationPlan, where: Environment, record: Record | ReadRecord) -> Ablation:
    """What a record tells of a plan."""

    def ask(network: Architecture) -> dict[str, Any]:
        return _told(record.find(_latency_key(network)) or {"failure": "not measured yet"})

    placed = tuple(rows_of_plan(plan, ask))
    found = {pair: _told(fact) for pair in _pairs(plan, placed) if (fact := record.find(_training_key(*pair))) is not None}
    return Ablation(plan=plan, environment=where, placed=placed, trainings=found)


def _claim(out: Path, plan: AblationPlan, here: Environment, record: Record) -> AblationPlan:
    """Write down what the folder is for, with the kinds and seeds of earlier calls; returns that.

    Raises:
        UserError: it holds another ablation, whose rows do not compare.
    """
    if (out / STUDY).exists():
        known, there = _read_study(out)
        one, other = ({**p.to_dict(), "data": data_name(p.data)} for p in (known, plan))
        differences = differing(*({name: v for name, v in values.items() if name not in MAY_CHANGE} for values in (one, other)))
        if different := "; ".join([*([differences] if differences else []), *there.differences(here)]):
            if record.has_success():
                raise UserError(f"{out} holds another ablation ({different}); name another folder with --out")
            record.clear()  # of a start that failed: why it did is no fact of this one
        else:
            plan = plan.joined(known)
    write_json(out / STUDY, {"plan": plan.to_dict(), "environment": dataclasses.asdict(here)})
    return plan


def _read_study(out: Path) -> tuple[AblationPlan, Environment]:
    path = out / STUDY
    try:
        values = parse_json(path.read_text())
        return AblationPlan.from_dict(values["plan"]), Environment.from_dict(values["environment"])
    except OSError as error:
        raise UserError(f"{out} holds no ablation: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} does not describe an ablation: {error!r}; name another folder with --out") from error


def _latency_key(network: Architecture) -> dict[str, Any]:
    return {"what": "latency", "network": str(network)}


def _training_key(network: str, seed: int) -> dict[str, Any]:
    return {"what": "training", "network": network, "seed": seed}


def _told(fact: dict[str, Any]) -> dict[str, Any]:
    """A fact without the note on whether it is tried again."""
    return {name: value for name, value in fact.items() if name != "again"}


def _failed(reason: BaseException, *, again: bool) -> dict[str, Any]:
    """A failure as a fact; with `again` it says as much of the moment as of the network, and the next call tries once more."""
    return {"failure": " ".join(str(reason).split()) or type(reason).__name__, "again": again}


def _asker(plan: AblationPlan, record: Record, store: Store, worker: Worker | None, observer: Observer) -> Ask:
    """Answers with the latency that is recorded, else with one from the store, else with a new one."""
    tried: set[Architecture] = set()

    def ask(network: Architecture) -> dict[str, Any]:
        fact = record.find(_latency_key(network))
        if fact is None or (fact.get("again") and network not in tried):
            tried.add(network)
            fact = _measured(plan, network, store, worker)
            record.add(_latency_key(network), fact)
            observer.note(f"{network}: {fact.get('failure') or format(fact['latency_ms'], '.3f') + ' ms'}")
        return _told(fact)

    return ask


def _measured(plan: AblationPlan, network: Architecture, store: Store, worker: Worker | None) -> dict[str, Any]:
    at = plan.conditions
    same: dict[str, Any] = {name: getattr(at, name) for name in ("backend", "device", "boundary", "threads", "precision", "plan")}
    try:
        made = build(network, plan.classes, deployed=True)
        found = measure_steady(made, subject=subject(network, plan.classes), store=store, size=plan.size, worker=worker, **same)
    except MeasurementFailed as failure:
        return _failed(failure, again=isinstance(failure, WorkerLost) or is_out_of_memory(failure))
    except (MemoryError, RuntimeError) as error:
        return _failed(error, again=True)
    return {"latency_ms": found.latency_ms, "stable": found.verdict().stable}


def _pairs(plan: AblationPlan, placed: tuple[Placed, ...]) -> list[tuple[str, int]]:
    """Every training, seed by seed, so that a call cut short leaves whole seeds. Rows of one network share its trainings."""
    networks = dict.fromkeys(str(row.network) for row in placed if row.network is not None)
    return [(network, seed) for seed in range(plan.seeds) for network in networks]


def _train_all(
    plan: AblationPlan,
    pairs: list[tuple[str, int]],
    out: Path,
    record: Record,
    observer: Observer,
    parallel: int,
    on_part: Callable[[], None],
) -> None:
    facts = {pair: record.find(_training_key(*pair)) for pair in pairs}
    missing = [pair for pair, fact in facts.items() if fact is None or fact.get("again")]
    done = len(pairs) - len(missing)
    on_part()
    threads = max(1, plan.conditions.threads // parallel)
    folders = [out / TRAININGS / f"{network}-seed{seed}" for network, seed in missing]
    same = [(plan, network, seed, folder, threads) for (network, seed), folder in zip(missing, folders, strict=True)]

    def tick() -> None:
        curves = [read_curve(folder / "curve.csv") for folder in folders]
        iterations = sum(int(curve[-1]["iteration"]) for curve in curves if curve)
        observer.work("iterations", iterations, len(folders) * plan.recipe.iterations)

    if parallel > 1:
        ended = run_apart([Call(_trained, (*one, Observer())) for one in same], parallel, tick)
    else:
        ended = run_here([Call(_trained, (*one, observer)) for one in same])
    for number, value in ended:
        network, seed = missing[number]
        if isinstance(value, Exception) and not isinstance(value, WorkerLost):
            raise value
        fact = _failed(value, again=True) if isinstance(value, WorkerLost) else value
        record.add(_training_key(network, seed), fact)
        if "failure" in fact:
            observer.note(f"{network}, seed {seed}: {fact['failure']}")
        done += 1
        observer.work("candidates", done, len(pairs), f"{network}, seed {seed}")
        on_part()


def _trained(plan: AblationPlan, network: str, seed: int, folder: Path, threads: int, observer: Observer) -> dict[str, Any]:
    training = TrainPlan(architecture=network, data=plan.data, recipe=plan.recipe, seed=seed)
    means = Means(device=plan.training_device, precision=plan.precision, threads=threads, save_s=SAVE_S, validations=0)
    start = time.perf_counter()
    try:
        scores = run_training(training, means, folder, observer).scores
    except TrainingFailed as failure:
        return _failed(failure, again=False)
    except (RuntimeError, MemoryError, UserError) as failure:
        return _failed(failure, again=True)
    return {"miou_percent": scores.miou_percent, "seconds": round(time.perf_counter() - start, 1)}
