"""A whole training in a folder: resumable, watched, and scored, with everything a reader needs beside the weights.

config.json  training.lock and state.pt (while it lasts)  curve.csv  tensorboard/  NETWORK.safetensors
scores.json  classes.csv  confusion.png  curve.png  README.md (the model card)
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latency.lock import device_lock
from lpsnet.checkpoint import holds_deployed, load, read_tensors, save
from lpsnet.data import DATASETS, DataSpec, data_name, native_size, open_split
from lpsnet.data.frames import Frames
from lpsnet.data.joined import joined
from lpsnet.errors import UserError
from lpsnet.evaluation import Evaluation, evaluate
from lpsnet.network import OUTPUT_STRIDE, LPSNet
from lpsnet.parallel import Lane, lane_for
from lpsnet.recipe import TrainRecipe
from lpsnet.resume import Keeper
from lpsnet.training import Point, begin, first_images, fit
from lpsnet.zoo import Network, build, canonical
from search.cards import write_card, write_curve_figure
from search.observer import Observer
from search.proxy import keep_freed_memory
from search.run import provenance, write_json
from search.scoring import write_scores
from search.training_folder import CONFIG, CURVE, CURVE_COLUMNS, STATE, check_plan, finished_weights, held, read_curve, write_curve

MOST_SEED = 2**63 - 1
"""The largest that torch takes."""


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What decides a training.

    Args:
        architecture: name or text of the network.
        data: `NAME` or `NAME:PATH`.
        recipe: how.
        splits: what is trained on: ("train",), or ("train", "val") for a network to ship.
        seed: of weights, order of frames and augmentation.
        init: checkpoint, or shipped network, whose weights it starts from; empty for random ones.
        teacher: checkpoint whose scores it learns from, too; empty for none.
    """

    architecture: str
    data: str
    recipe: TrainRecipe
    splits: tuple[str, ...] = ("train",)
    seed: int = 0
    init: str = ""
    teacher: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", canonical(self.architecture))
        if self.splits not in (("train",), ("train", "val")):
            raise UserError(f"splits must be train, or train and val, got {', '.join(self.splits)}")
        if self.teacher and not self.recipe.distillation:
            raise UserError("a teacher needs a weight: add --set distillation=1")
        if self.recipe.distillation and not self.teacher:
            raise UserError(f"distillation={self.recipe.distillation:g} needs a teacher: add --teacher CHECKPOINT")
        if not 0 <= self.seed <= MOST_SEED:
            raise UserError(f"seed must be from 0 to {MOST_SEED}, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name."""
        return {**dataclasses.asdict(self), "splits": list(self.splits), "recipe": self.recipe.to_dict()}


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a training runs on and how it is watched; none of it decides the result on a CPU.

    Args:
        device: "cpu" or "cuda".
        precision: one of `lpsnet.recipe.PRECISIONS`.
        compiler: one of `lpsnet.parallel.COMPILERS`.
        threads: of the CPU; 0 for as many as torch takes.
        save_s: seconds from one saving of the state to the next.
        max_hours: pause after this many hours.
        validations: how often the network is scored on the way.
        deterministic: on a GPU, use only algorithms that repeat.
    """

    device: str = "cpu"
    precision: str = "fp32"
    compiler: str = "off"
    threads: int = 0
    save_s: float = 300.0
    max_hours: float | None = None
    validations: int = 5
    deterministic: bool = False

    def lane(self) -> Lane:
        """Where the training runs; sets threads and determinism of this process."""
        keep_freed_memory()
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.deterministic:
            torch.use_deterministic_algorithms(True)
        return lane_for(self.device, self.precision, self.compiler)


def run_training(
    plan: TrainPlan, means: Means, out: Path, observer: Observer, *, stopped: Callable[[], bool] = lambda: False
) -> Evaluation:
    """Train, or go on with the training that lies in `out`, and score the network on the validation split.

    Args:
        plan: what decides it; a folder of another plan is refused.
        means: what it runs on.
        out: the folder.
        observer: told of progress.
        stopped: asked after each update whether to pause.

    Raises:
        Paused: `stopped` said so, or the time allowed was over; the state is kept.
        TrainingFailed: the loss was lost twice.
        UserError: a checkpoint, data set or folder that cannot be used.
    """
    if (done := _finished(plan, out)) is not None:
        return done
    lane = means.lane()
    with held(out) if lane.is_main else nullcontext():
        found = _train(plan, means, out, lane, observer, stopped)
    lane.end()
    return found


def _train(plan: TrainPlan, means: Means, out: Path, lane: Lane, observer: Observer, stopped: Callable[[], bool]) -> Evaluation:
    """Train in a folder that is held. What the user may have got wrong is found before the frames are decoded."""
    keeper = Keeper(out / STATE, plan.to_dict(), every_s=means.save_s)
    spec = DataSpec.parse(plan.data)
    size = native_size(spec)
    training, validation = joined([open_split(spec, split, size) for split in plan.splits]), open_split(spec, "val", size)
    _check(plan, training)
    teacher = _teacher(plan, training).to(lane.device) if plan.teacher else None
    _decode(training, validation, observer)
    network = _network(plan, training, observer).to(lane.device)
    watch = _Watch(plan, means, out, validation, observer, lane)
    with device_lock(lane.device.type, alone=False):
        if lane.is_main:
            write_json(out / CONFIG, {**plan.to_dict(), "means": dataclasses.asdict(means), **provenance()})
        deadline = None if means.max_hours is None else time.monotonic() + means.max_hours * 3600
        with _refusals(plan.architecture):
            fit(
                network,
                training,
                plan.recipe,
                seed=plan.seed,
                lane=lane,
                keeper=keeper,
                teacher=teacher,
                restarts=1,
                on_progress=watch.progress,
                on_point=watch.point,
                on_note=observer.note,
                pause=lambda: stopped() or (deadline is not None and time.monotonic() >= deadline),
            )
        found = evaluate(network, validation, input_size=plan.recipe.input_size(validation.size), boundary=True, on_progress=observer.work)
    if lane.is_main:
        watch.end(found)
        if "val" in plan.splits:
            observer.note("the validation split was trained on, too: what the network scores there says little")
        _write_results(plan, out, network, found, validation)
    return found


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what a network says of an input it cannot be trained on, such as batches of one, into the user's mistake it is."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{name} cannot be trained so: {error}") from error


def _finished(plan: TrainPlan, out: Path) -> Evaluation | None:
    """The evaluation of a training that has ended, None where it has not.

    Raises:
        UserError: the folder holds another training.
    """
    path = finished_weights(out, plan.architecture) if check_plan(out, plan.to_dict()) else None
    if path is None:
        return None
    (out / STATE).unlink(missing_ok=True)
    spec = DataSpec.parse(plan.data)
    validation = open_split(spec, "val", native_size(spec))
    return evaluate(load(path), validation, input_size=plan.recipe.input_size(validation.size), boundary=True)


def _decode(training: Frames, validation: Frames, observer: Observer) -> None:
    """Decode what is trained on and what is scored on.

    Raises:
        UserError: one of them has no labelled pixel.
    """
    for split, name in ((training, "training"), (validation, "validation")):
        split.hold(lambda done, total: observer.work("frames", done, total))
        if split.note:
            observer.note(split.note)
        if not split.is_labelled():
            raise UserError(f"the {name} split has no labelled pixel: every label is the ignore index")


def _network(plan: TrainPlan, training: Frames, observer: Observer) -> Network:
    """The network with the weights it starts from; all that is random from here on follows the plan's seed."""
    torch.manual_seed(plan.seed)
    network = begin(plan.architecture, training.num_classes, plan.recipe)
    if plan.init:
        network = _started(network, plan, training, observer)
        torch.manual_seed(plan.seed)
    return network


def _check(plan: TrainPlan, training: Frames) -> None:
    """Raise `UserError` where there are no weights to start from, or crops leave a path nothing or a single pixel to normalise."""
    if plan.init:
        load(plan.init, plan.architecture) if holds_deployed(plan.init) else read_tensors(plan.init)
    recipe, whole = plan.recipe, plan.recipe.input_size(training.size)
    crop = (recipe.crop_height or whole[0], recipe.crop_width or whole[1])
    with torch.device("meta"):
        network = build(plan.architecture, training.num_classes, branches=False)
    if not isinstance(network, LPSNet):
        return
    try:
        smallest = network.path_sizes(*crop)[-1]
        network.path_sizes(*whole)
    except ValueError as error:
        raise UserError(str(error)) from error
    if recipe.batch_size == 1 and max(smallest) <= OUTPUT_STRIDE:
        raise UserError(
            f"a batch of 1 crop of {crop[0]}x{crop[1]} ends in a single pixel, of which no batch normalisation can be taken; "
            "take a larger batch_size or crop"
        )


def _teacher(plan: TrainPlan, training: Frames) -> Network:
    """The teacher. Raises `UserError` where it knows other classes."""
    teacher = load(plan.teacher)
    if teacher.num_classes != training.num_classes:
        raise UserError(f"the teacher {plan.teacher} has {teacher.num_classes} classes, the data set {training.num_classes}")
    return teacher


def _started(network: Network, plan: TrainPlan, training: Frames, observer: Observer) -> Network:
    """The network with the weights of a checkpoint; one in deployed form is brought into training form.

    Raises:
        UserError: a comparison network in deployed form.
    """
    from lpsnet.inherit import training_form
    from lpsnet.transfer import transfer

    if not holds_deployed(plan.init):
        observer.note(f"{plan.init}: {transfer(plan.init, network)}")
        return network
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        deployed = load(plan.init, plan.architecture, num_classes=training.num_classes)
    if not isinstance(deployed, LPSNet):
        raise UserError(f"{plan.init} is in deployed form, which {network.name} cannot be trained from; give one in training form")
    for warning in told:
        observer.note(str(warning.message))
    observer.note(f"{plan.init}: in deployed form; its normalisations are taken from a batch of the split")
    return training_form(deployed, first_images(training, plan.recipe), branches=plan.recipe.branches).train()


class _Watch:
    """Writes the curve down, for a reader and for TensorBoard, and scores the network now and then."""

    def __init__(self, plan: TrainPlan, means: Means, out: Path, validation: Frames, observer: Observer, lane: Lane) -> None:
        self._plan, self._path, self._validation, self._observer, self._lane = plan, out / CURVE, validation, observer, lane
        self._every = max(1, plan.recipe.iterations // means.validations) if means.validations else plan.recipe.iterations + 1
        self._told = self._scored = ""
        self._writer: Any = None
        if lane.is_main:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(out / "tensorboard"))

    def progress(self, what: str, done: int, total: int) -> None:
        """Updates done, beside what the last point of the curve told."""
        self._observer.work(what, done, total, self._told)

    def point(self, point: Point, network: Network) -> None:
        """A point of the curve."""
        row: dict[str, Any] = {**dataclasses.asdict(point), "val_miou_percent": ""}
        iterations = self._plan.recipe.iterations
        # Where the last point was stands in the file: a resumed training scores at the same points as one that was not stopped.
        last = max((int(known["iteration"]) for known in read_curve(self._path) if int(known["iteration"]) < point.iteration), default=0)
        if point.iteration // self._every > last // self._every and point.iteration < iterations:
            size = self._plan.recipe.input_size(self._validation.size)
            found = evaluate(network, self._validation, input_size=size, on_progress=self._observer.work)
            row["val_miou_percent"] = found.scores.miou_percent
            self._observer.note(f"iteration {point.iteration}: loss {point.loss:.4f}, val mIoU {found.scores.miou_percent:.2f}")
            self._scored = f", val mIoU {found.scores.miou_percent:.2f}"
        self._told = f"loss {point.loss:.3f}, lr {point.learning_rate:.4g}, {point.images_per_s:.1f} images/s{self._scored}"
        if self._lane.is_main:
            self._append(row)

    def end(self, found: Evaluation) -> None:
        """The score of the whole training, into the last point of the curve."""
        *earlier, last = read_curve(self._path)
        write_curve(self._path, [*earlier, {**last, "val_miou_percent": found.scores.miou_percent}])
        self._writer.add_scalar("val_miou_percent", found.scores.miou_percent, int(last["iteration"]))

    def _append(self, row: dict[str, Any]) -> None:
        kept = [known for known in read_curve(self._path) if int(known["iteration"]) < row["iteration"]]
        write_curve(self._path, [*kept, row])
        for name in CURVE_COLUMNS[1:]:
            if row[name] != "":
                self._writer.add_scalar(name, row[name], row["iteration"])


def _write_results(plan: TrainPlan, out: Path, network: Network, found: Evaluation, validation: Frames) -> None:
    """The checkpoint, and what is told of it."""
    names, licence = validation.class_names, DATASETS[DataSpec.parse(plan.data).name].licence
    metrics = {} if "val" in plan.splits else found.scores.to_dict()
    path = out / f"{plan.architecture}.safetensors"
    save(
        path,
        network,
        class_names=names,
        input_size=plan.recipe.input_size(validation.size),
        recipe=plan.recipe.to_dict(),
        metrics=metrics,
        colours=validation.source.colours,
        licence=licence,
        provenance={**provenance(), "data": data_name(plan.data), "splits": list(plan.splits), "seed": plan.seed, "init": plan.init},
    )
    write_curve_figure(out / "curve.png", read_curve(out / CURVE))
    write_card(path, out / "README.md")
    write_scores(out, found, {"trained_on_val": "val" in plan.splits})  # last: where they are, all is
    (out / STATE).unlink(missing_ok=True)
