"""A whole training in a folder: resumable, watched, and scored, with everything a reader needs beside the weights.

config.json  state.pt (while it lasts)  curve.csv  tensorboard/  NETWORK.safetensors
scores.json  classes.csv  confusion.png  curve.png  README.md (the model card)
"""

from __future__ import annotations

import csv
import dataclasses
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latency.lock import device_lock
from lpsnet.architecture import Architecture
from lpsnet.checkpoint import holds_deployed, load, save
from lpsnet.data import DATASETS, DataSpec, native_size, open_split
from lpsnet.data.frames import Frames
from lpsnet.data.joined import joined
from lpsnet.errors import UserError
from lpsnet.evaluation import Evaluation, evaluate
from lpsnet.network import LPSNet
from lpsnet.parallel import Lane, lane_for
from lpsnet.recipe import TrainRecipe
from lpsnet.resume import Keeper
from lpsnet.training import Point, first_images, fit
from search.cards import write_card, write_curve_figure
from search.observer import Observer
from search.proxy import keep_freed_memory
from search.run import make_folder, provenance, write_json
from search.scoring import write_scores

STATE, CONFIG, CURVE = "state.pt", "config.json", "curve.csv"
_COLUMNS = ("iteration", "loss", "learning_rate", "images_per_s", "waiting_percent", "val_miou_percent")


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What decides a training.

    Args:
        architecture: text of the network.
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
        object.__setattr__(self, "architecture", str(Architecture.parse(self.architecture)))
        if self.splits not in (("train",), ("train", "val")):
            raise UserError(f"splits must be train, or train and val, got {', '.join(self.splits)}")
        if self.teacher and not self.recipe.distillation:
            raise UserError("a teacher needs a weight: add --set distillation=1")

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
    make_folder(out)
    keeper = Keeper(out / STATE, plan.to_dict(), every_s=means.save_s)
    training, validation = _splits(plan, observer)
    with device_lock(lane.device.type, alone=False):
        network = _network(plan, training, observer).to(lane.device)
        if lane.is_main:
            write_json(out / CONFIG, {**plan.to_dict(), "means": dataclasses.asdict(means), **provenance()})
        watch = _Watch(plan, means, out, validation, observer, lane)
        deadline = None if means.max_hours is None else time.monotonic() + means.max_hours * 3600
        teacher = load(plan.teacher).to(lane.device) if plan.teacher else None
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
        _write_results(plan, out, network, found, validation)
    lane.end()
    return found


def _finished(plan: TrainPlan, out: Path) -> Evaluation | None:
    """The evaluation of a training that has ended, None where it has not.

    Raises:
        UserError: the folder holds another training.
    """
    if not (out / CONFIG).is_file():
        return None
    try:
        found = json.loads((out / CONFIG).read_text())
    except ValueError as error:
        raise UserError(f"{out / CONFIG} is damaged: {error}; name another folder") from error
    wanted = json.loads(json.dumps(plan.to_dict()))
    differences = [f"{name}: {found.get(name)!r}, not {value!r}" for name, value in wanted.items() if found.get(name) != value]
    if differences:
        raise UserError(f"{out} holds another training ({'; '.join(differences)}); name another folder")
    path = out / f"{plan.architecture}.safetensors"
    if not ((out / "scores.json").is_file() and path.is_file()):
        return None
    (out / STATE).unlink(missing_ok=True)
    spec = DataSpec.parse(plan.data)
    validation = open_split(spec, "val", native_size(spec))
    return evaluate(load(path), validation, input_size=plan.recipe.input_size(validation.size), boundary=True)


def _splits(plan: TrainPlan, observer: Observer) -> tuple[Frames, Frames]:
    """What is trained on and what is scored on, decoded."""
    spec = DataSpec.parse(plan.data)
    size = native_size(spec)
    training, validation = joined([open_split(spec, split, size) for split in plan.splits]), open_split(spec, "val", size)
    for split in (training, validation):
        split.hold(lambda done, total: observer.work("frames", done, total))
        if split.note:
            observer.note(split.note)
    return training, validation


def _network(plan: TrainPlan, training: Frames, observer: Observer) -> LPSNet:
    """The network with the weights it starts from; all that is random from here on follows the plan's seed."""
    torch.manual_seed(plan.seed)
    network = LPSNet(plan.architecture, training.num_classes, branches=plan.recipe.branches)
    if plan.init:
        network = _started(network, plan, training, observer)
        torch.manual_seed(plan.seed)
    return network


def _started(network: LPSNet, plan: TrainPlan, training: Frames, observer: Observer) -> LPSNet:
    """The network with the weights of a checkpoint; one in deployed form is brought into training form."""
    from lpsnet.inherit import training_form
    from lpsnet.transfer import transfer

    if not holds_deployed(plan.init):
        observer.note(f"{plan.init}: {transfer(plan.init, network)}")
        return network
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        deployed = load(plan.init, plan.architecture, num_classes=training.num_classes)
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

    def point(self, point: Point, network: LPSNet) -> None:
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

    def _append(self, row: dict[str, Any]) -> None:
        kept = [known for known in read_curve(self._path) if int(known["iteration"]) < row["iteration"]]
        with self._path.open("w", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*kept, {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}])
        for name in _COLUMNS[1:]:
            if row[name] != "":
                self._writer.add_scalar(name, row[name], row["iteration"])


def read_curve(path: Path) -> list[dict[str, str]]:
    """Rows of a learning curve, none where there is no file."""
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def _write_results(plan: TrainPlan, out: Path, network: LPSNet, found: Evaluation, validation: Frames) -> None:
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
        provenance={**provenance(), "data": plan.data.partition(":")[0], "splits": list(plan.splits), "seed": plan.seed, "init": plan.init},
    )
    write_scores(out, found, {"trained_on_val": "val" in plan.splits})
    write_curve_figure(out / "curve.png", read_curve(out / CURVE))
    write_card(path, out / "README.md")
    (out / STATE).unlink(missing_ok=True)
