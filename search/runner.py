"""The shell around Algorithm 1: it answers the generator from the stores, else from the executor, and keeps the answers.

Resuming is replaying: every answer is written before it is sent, so a killed run asks again and is answered from the
stores. Looking at a run is replaying without an executor.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from latency.measurement import Measurement
from latency.protocols import MeasurementFailed
from latency.worker import WorkerLost
from lpsnet.architecture import Architecture
from lpsnet.data import data_name
from lpsnet.errors import TrainingFailed, UserError
from search.executor import Executor, conditions, subject
from search.expand import expand
from search.files import digest_of
from search.observer import Observer
from search.pool import Ended
from search.proxy import TrainJob
from search.run import Run
from search.step import CONTROL, Candidate, Compare, Failure, InTurns, Measure, Member, Reply, SearchStopped, Step, Train
from search.study import OpenTrial, TrainingKey, TrainingRecord

LABELS = "labels"
"""The boundary a finished network's latency is shown at beside the one that was searched by."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A question that the stores answer in part only.

    Args:
        request: the question.
        latencies: what is known of networks to be measured, in milliseconds.
        trainings: the candidates that are scored.
    """

    request: Measure | Train | Compare
    latencies: Mapping[Architecture, float | Failure] = field(default_factory=dict)
    trainings: Mapping[Architecture, TrainingRecord] = field(default_factory=dict)


class NotYet(Exception):
    """A question that the stores do not answer, asked without an executor."""

    def __init__(self, pending: Pending | None = None) -> None:
        super().__init__("the stores hold no answer yet")
        self.pending = pending


class OutOfTime(Exception):
    """The time allowed for new work is over."""


@dataclass
class Progress:
    """What a run has come to.

    Args:
        steps: decided steps, the start first.
        stopped: why the search can take no further step; empty where it can, or is done.
        out_of_time: whether it paused because the time allowed was over.
        pending: what the stores of a replayed run do not answer yet; None where they answer everything.
    """

    steps: list[Step] = field(default_factory=list)
    stopped: str = ""
    out_of_time: bool = False
    pending: Pending | None = None


def replay(run: Run) -> Progress:
    """What a run's stores hold, without measuring or training anything."""
    return _advance(run, _Answerer(run, None, Observer(), _no_limit), Observer(), lambda progress: None)


def advance(
    run: Run,
    executor: Executor,
    observer: Observer,
    on_step: Callable[[Progress], None],
    *,
    max_hours: float | None = None,
) -> Progress:
    """Take a run to its configured number of steps.

    Args:
        run: an open run, driven by this process.
        executor: does what the stores cannot answer.
        observer: told of progress.
        on_step: called after each decided step with the progress so far, for the derived files.
        max_hours: no new measurement or training begins after this many hours.
    """
    deadline = None if max_hours is None else time.monotonic() + max_hours * 3600

    def check_time() -> None:
        if deadline is not None and time.monotonic() >= deadline:
            raise OutOfTime

    return _advance(run, _Answerer(run, executor, observer, check_time), observer, on_step)


def _advance(run: Run, answerer: _Answerer, observer: Observer, on_step: Callable[[Progress], None]) -> Progress:
    progress = Progress()
    config = run.config
    search = expand(
        config.start_architecture,
        steps=config.steps,
        bounds=config.bounds,
        forecast=run.forecast,
        noise=config.noise,
        plan=config.race,
        iterations=config.proxy.iterations,
    )
    answers: Reply = None
    observer.work("steps", 0, config.steps + 1)
    try:
        while True:
            request = search.send(answers)
            if isinstance(request, Measure):
                answers = answerer.latencies(request)
            elif isinstance(request, Train):
                answers = answerer.scores(request)
            elif isinstance(request, Compare):
                answers = answerer.tie(request)
            else:
                answers = None
                progress.steps.append(request)
                try:
                    answerer.settle(request)
                finally:  # a decided step is in the files, whatever befalls the rest
                    on_step(progress)
                observer.work("steps", len(progress.steps), config.steps + 1)
                observer.decided(request)
    except StopIteration:
        answerer.keep_weights(set())
    except SearchStopped as stop:
        progress.stopped = str(stop)
    except NotYet as question:
        progress.pending = question.pending
    except OutOfTime:
        progress.out_of_time = True
    return progress


def _no_limit() -> None:
    return None


@dataclass
class _Cost:
    """What the latencies of a step took: how many were asked for, how many of these measured, the seconds, and which are unstable."""

    asked: int = 0
    measured: int = 0
    seconds: float = 0.0
    unstable: set[Architecture] = field(default_factory=set)


class _Answerer:
    """Answers requests from the run's stores, then from the executor, if there is one."""

    def __init__(self, run: Run, executor: Executor | None, observer: Observer, check_time: Callable[[], None]) -> None:
        self._run = run
        self._executor = executor
        self._observer = observer
        self._check_time = check_time
        self._num_classes = len(run.class_names)
        self._trials: dict[Architecture, str] = {}
        self._parents: dict[Architecture, str] = {}
        self._chain: set[Architecture] = set()
        self._member: Member | None = None
        self._cost = _Cost()

    def latencies(self, request: Measure) -> dict[Architecture, float | Failure]:
        """An answer to `Measure`."""
        answers: dict[Architecture, float | Failure] = {}
        total = len(request.architectures)
        for number, architecture in enumerate(request.architectures):
            self._observer.work("latencies", number, total, f"step {request.step}: {architecture}")
            try:
                found = self._latency(architecture, self._run.config.boundary)
            except NotYet:
                raise NotYet(Pending(request=request, latencies=answers)) from None
            answers[architecture] = Failure(found) if isinstance(found, str) else found.latency_ms
            if isinstance(found, Measurement) and not found.verdict().stable:
                self._cost.unstable.add(architecture)
            self._observer.work("latencies", number + 1, total, f"step {request.step}: {architecture}")
        return answers

    def scores(self, request: Train) -> dict[Architecture, float | Failure]:
        """An answer to `Train`."""
        keys = {candidate.architecture: self._key(request, candidate) for candidate in request.candidates}
        records = {a: record for a, key in keys.items() if (record := self._run.study.find(key)) is not None}
        missing = [candidate for candidate in request.candidates if candidate.architecture not in records]
        if missing:
            if self._executor is None:
                raise NotYet(Pending(request=request, trainings=records))
            if request.seed == 0:  # from here on nothing is replayed: the chain is known to its end
                self.keep_weights({candidate.architecture for candidate in request.candidates})
            records |= self._train(request, missing, keys)
        for candidate in request.candidates:
            network = candidate.architecture
            if request.seed == 0 and not request.rung and network != request.parent:
                self._trials[network] = records[network].trial
                self._parents[network] = keys[network].parent_trial
        return {a: Failure(record.failure) if record.miou_percent is None else record.miou_percent for a, record in records.items()}

    def settle(self, step: Step) -> None:
        """After a decision: what its latencies took, and the chosen network's latency to the labels."""
        cost, self._cost = self._cost, _Cost()
        if cost.measured:
            spared = sum(text.count(",") + 1 for text in step.excluded.values())
            known = cost.asked - cost.measured
            told = f"step {step.number}: {cost.measured} latencies measured in {cost.seconds:.0f} s, {known} known already"
            self._observer.note(told + (f", {spared} spared by the predictor" if spared else ""))
            if cost.unstable:
                found = f"step {step.number}: {len(cost.unstable)} latencies are unstable, so its target and slopes may be off"
                self._observer.note(f"{found}; stop what else uses the device, then begin anew or resume --remeasure")
        self._chain.add(step.chosen.architecture)
        self._member = step.chosen
        if self._executor is None:
            return
        for state in self._run.states.glob("*.pt"):
            state.unlink()
        self._run.study.describe(step.number, self._decision(step))
        self._latency(step.chosen.architecture, LABELS)

    def _decision(self, step: Step) -> dict[str, object]:
        """What a step came to, for who looks at its study."""
        config, chosen = self._run.config, step.chosen
        latency = f"ms to the {config.boundary} by {config.backend} on {self._run.environment.device}"
        told = {"chosen": str(chosen.architecture), "expansion": step.chosen_trial.candidate.text, "latency_ms": chosen.latency_ms}
        told |= {"miou_percent": chosen.miou_percent, "latency": latency, "data": data_name(config.data)}
        return told | ({"parent": str(step.parent.architecture), "target_ms": step.target_ms} if step.parent else {})

    def keep_weights(self, besides: set[Architecture]) -> None:
        """Remove the weights of every network that is neither in the chain nor in `besides`."""
        if self._executor is None:
            return
        kept = {self._run.weights_path(architecture) for architecture in self._chain | besides}
        for path in self._run.checkpoints.glob("*.safetensors"):
            if path not in kept:
                path.unlink()

    def tie(self, request: Compare) -> InTurns | Failure:
        """An answer to `Compare`."""
        from latency.compare import comparison, in_turns

        classes = self._num_classes
        name = in_turns(subject(request.first, classes), subject(request.second, classes))
        detail = f"step {request.step}: {request.first} and {request.second} in turns"
        self._observer.work("latencies", 0, 1, detail)
        try:
            found = self._kept(name, self._run.config.boundary, lambda executor: executor.compare(request.first, request.second))
        except NotYet:
            raise NotYet(Pending(request=request)) from None
        self._observer.work("latencies", 1, 1, detail)
        if isinstance(found, str):
            return Failure(found)
        told = comparison(found)
        return InTurns(told.ratio, told.low, told.high)

    def _latency(self, architecture: Architecture, boundary: str) -> Measurement | str:
        name = subject(architecture, self._num_classes)
        return self._kept(name, boundary, lambda executor: executor.measure(architecture, boundary))

    def _kept(self, name: str, boundary: str, measure: Callable[[Executor], Measurement]) -> Measurement | str:
        """The run's row of that name, else a new one, else why there is none."""
        store = self._run.store
        at = conditions(self._run.config, boundary)
        found = store.find(name, at, self._run.environment)
        self._cost.asked += 1
        if found is not None:
            return found
        if self._executor is None:
            raise NotYet
        self._check_time()
        start, fresh = time.perf_counter(), not self._executor.holds(name, boundary)
        try:
            measurement = measure(self._executor)
        except MeasurementFailed as failure:
            if isinstance(failure, WorkerLost) and not self._chain:
                return str(failure)  # nothing is decided yet: the start is tried again when the run goes on
            store.add_failure(name, at, self._run.environment, "", str(failure))
            return str(failure)
        finally:
            self._cost.measured += fresh
            self._cost.seconds += time.perf_counter() - start
        store.add(measurement)
        return measurement

    def _train(
        self, request: Train, candidates: list[Candidate], keys: dict[Architecture, TrainingKey]
    ) -> dict[Architecture, TrainingRecord]:
        """Have candidates trained, and keep what came of each as soon as it is there."""
        assert self._executor is not None
        named = {candidate.architecture: candidate for candidate in candidates}
        handles: dict[Architecture, OpenTrial] = {}
        records: dict[Architecture, TrainingRecord] = {}
        total, where = len(request.candidates), f"step {request.step}"
        known = total - len(candidates)

        def begin(job: TrainJob) -> None:
            self._check_time()
            self._observer.work("candidates", known + len(records), total, f"{where}: {job.architecture}")
            attributes = self._attributes(named[job.architecture])
            handles[job.architecture] = self._run.study.begin(request.step, keys[job.architecture], attributes)

        def wait(running: int) -> None:
            self._observer.work("candidates", known + len(records), total, f"{where}: {running} at a time")

        jobs = [self._job(request, candidate, keys[candidate.architecture]) for candidate in candidates]
        for ended in self._executor.train(jobs, begin, wait):
            network = ended.job.architecture
            record = self._record(request, ended)
            records[network] = self._run.study.finish(handles[network], keys[network], record, self._gain(record))
            self._observer.work("candidates", known + len(records), total, f"{where}: {network}")
        return records

    def _gain(self, record: TrainingRecord) -> dict[str, float]:
        """For who looks at the studies: mIoU less the parent's. With a control a gain is known only once that has ended, too."""
        if record.miou_percent is None or self._member is None or self._run.config.race.needs_control:
            return {}
        return {"gain_percent": record.miou_percent - self._member.miou_percent}

    def _job(self, request: Train, candidate: Candidate, key: TrainingKey) -> TrainJob:
        race, state = self._run.config.race, None
        if race.rungs and request.seed == 0:
            name = hashlib.sha256(dataclasses.replace(key, rung=0).text().encode()).hexdigest()[:24]
            state = self._run.states / f"{name}.pt"
        parent = None
        if key.inherited and request.parent is not None:
            parent = self._run.weights_path(request.parent)
            if not parent.is_file():
                raise UserError(f"{parent} is missing: candidates inherit their parent's weights; start a new run with --out")
        return TrainJob(architecture=candidate.architecture, seed=key.seed, rung=request.rung, parent=parent, state=state)

    def _key(self, request: Train, candidate: Candidate) -> TrainingKey:
        parent = "" if request.parent is None else self._trials[request.parent]
        if candidate.expansions == CONTROL and not self._run.config.race.inherit:
            parent = self._parents[candidate.architecture]  # the training that made it a member, as it was then
        return self._run.key(candidate.architecture, parent, rung=request.rung, seed=request.seed)

    def _attributes(self, candidate: Candidate) -> dict[str, object]:
        name, at = subject(candidate.architecture, self._num_classes), conditions(self._run.config)
        return {
            "expansion": candidate.text,
            "k": candidate.k,
            "latency_ms": candidate.latency_ms,
            "latency_row": self._run.store.row_number(name, at, self._run.environment),
        }

    def _record(self, request: Train, ended: Ended) -> TrainingRecord:
        """What is kept of a training: its scores, and the weights of a whole one that may join the chain."""
        from lpsnet.checkpoint import save

        trained, network = ended.result, ended.job.architecture
        if isinstance(trained, TrainingFailed):
            return TrainingRecord(failure=str(trained), seconds=ended.seconds)
        config, result = self._run.config, trained.scores
        scored = TrainingRecord(
            miou_percent=result.miou_percent, class_iou_percent=result.class_iou_percent, curve=trained.curve, seconds=ended.seconds
        )
        if request.rung or request.seed or network == request.parent:
            return scored
        path = self._run.weights_path(network)
        metrics = {"miou_percent": result.miou_percent, "class_iou_percent": list(result.class_iou_percent)}
        save(
            path,
            trained.network,
            class_names=self._run.class_names,
            input_size=config.size,
            recipe=config.proxy.to_dict(),
            metrics=metrics,
        )
        return dataclasses.replace(scored, weights=str(path.relative_to(self._run.path)), weights_sha256=digest_of(path))
