"""A checkpoint scored on a split, and the files that a benchmark's server takes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lpsnet.checkpoint import Metadata, load, read_description
from lpsnet.data import DataSpec, native_size, open_split
from lpsnet.data.augment import normalise
from lpsnet.data.cityscapes import LABEL_IDS
from lpsnet.data.frames import Frames
from lpsnet.errors import UserError
from lpsnet.evaluation import Evaluation, evaluate, predict, scaled_size
from lpsnet.zoo import Network, check_size
from search.cards import write_confusion
from search.files import uncomputed
from search.observer import Observer
from search.run import make_folder, provenance, write_json
from search.training_folder import SCORES


@dataclass(frozen=True, kw_only=True)
class ScorePlan:
    """What is scored, and how; see `lpsnet.evaluation.evaluate`. Without a size it is the checkpoint's own."""

    checkpoint: str
    data: str
    split: str
    architecture: str = ""
    size: tuple[int, int] | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    batch: int = 1


def score(
    plan: ScorePlan,
    device: str,
    observer: Observer,
    *,
    out: Path | None = None,
    submission: Path | None = None,
    on_scored: Callable[[Evaluation], None] = lambda found: None,
) -> Evaluation:
    """Score a checkpoint.

    Args:
        plan: what and how.
        device: "cpu" or "cuda".
        observer: told of progress.
        out: folder for scores, classes and the confusion matrix.
        submission: folder for the predictions as Cityscapes' server takes them.
        on_scored: given the scores before anything is written, so that no fault in writing loses them.

    Raises:
        UserError: a checkpoint or data set that cannot be used, or that do not fit each other.
    """
    network = load(plan.checkpoint, plan.architecture or None).to(device)
    spec = DataSpec.parse(plan.data)
    frames = open_split(spec, plan.split, native_size(spec))
    _check(plan, network, frames, out, submission)
    told = read_description(plan.checkpoint)
    own = told.input_size if told is not None else frames.size
    if told is not None and seen_in_training(told, plan):
        observer.note(f"{plan.checkpoint} was trained on the {plan.split} split, too: what it scores there says little")
    size = plan.size or own
    for scale in plan.scales:
        check_size(network, scaled_size(size, scale))  # found now, not after frames are decoded
    frames.hold(lambda done, total: observer.work("frames", done, total))
    found = evaluate(
        network,
        frames,
        input_size=size,
        batch_size=plan.batch,
        flip=plan.flip,
        scales=plan.scales,
        boundary=True,
        on_progress=observer.work,
    )
    on_scored(found)
    if out is not None:
        write_scores(out, found, {**asdict(plan), "input_size": size})
    if submission is not None:
        write_submission(submission, network, frames, size, observer)
    return found


def seen_in_training(told: Metadata, plan: ScorePlan) -> bool:
    """Whether a checkpoint says that it was trained on the split it is to be scored on."""
    return told.provenance.get("data") == DataSpec.parse(plan.data).name and plan.split in told.provenance.get("splits", ())


def _check(plan: ScorePlan, network: Network, frames: Frames, out: Path | None, submission: Path | None) -> None:
    """Raise `UserError` where the network's classes are not those of the data or the server, or a folder cannot be made."""
    if network.num_classes != frames.num_classes:
        raise UserError(f"{plan.checkpoint} has {network.num_classes} classes, {plan.data} has {frames.num_classes}; they must be equal")
    if submission is not None and network.num_classes != len(LABEL_IDS):
        raise UserError(f"Cityscapes' server takes its {len(LABEL_IDS)} classes, {plan.checkpoint} has {network.num_classes}")
    for folder in (out, submission):
        if folder is not None:
            make_folder(folder)


def write_scores(out: Path, found: Evaluation, told: dict[str, object]) -> None:
    """Write `classes.csv` and `confusion.png`, and last `scores.json`. Raises `UserError` where the folder cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lists = {"boundary_iou_percent": list(found.boundary_iou_percent), "category_iou_percent": found.category_iou_percent}
        rows = zip(
            found.class_names,
            found.scores.class_iou_percent,
            found.scores.class_precision_percent,
            found.scores.class_recall_percent,
            found.boundary_iou_percent,
            strict=True,
        )
        with (out / "classes.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["class", "iou_percent", "precision_percent", "recall_percent", "boundary_iou_percent"])
            writer.writerows([[uncomputed(row[0]), *("" if value is None else f"{value:.3f}" for value in row[1:])] for row in rows])
        write_confusion(out / "confusion.png", found.confusion, found.class_names)
        write_json(out / SCORES, {**found.scores.to_dict(), **lists, "images": found.images, **told, **provenance()})
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error


def write_submission(folder: Path, network: Network, frames: Frames, size: tuple[int, int], observer: Observer) -> None:
    """Write each prediction as a PNG of label ids at the frame's full size, named as Cityscapes' server expects.

    Raises:
        UserError: the folder cannot be written.
    """
    ids = np.array(LABEL_IDS, np.uint8)
    device = next(network.parameters()).device
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.inference_mode():
            for index in range(len(frames)):
                images = frames.batch([index]).images.to(device)
                found = predict(network, normalise(images), size, frames.size).max(1).indices[0].cpu().numpy()
                stem = Path(frames.source.name_of(index)).name.split("_gtFine")[0]
                Image.fromarray(ids[found]).save(folder / f"{stem}_pred_labelIds.png")
                observer.work("frames", index + 1, len(frames))
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}") from error
