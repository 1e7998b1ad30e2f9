"""Frames of the validation split with their labels and what some networks of the chain make of them (the paper's Fig. 8).

Predicted once, from the run's checkpoints and data set, and kept in the report's folder; without these the report says so.
"""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.files import replace_file
from latency.told import parse_json
from lpsnet.data import DATASETS, DataSpec
from lpsnet.errors import UserError
from search.files import digest_of
from search.observer import Observer
from search.pages.content import Gallery, Picture, Section
from search.pages.facts import Omission, RunFacts
from search.pages.picked import full_training
from search.picks import why_stale

if TYPE_CHECKING:
    import numpy as np

    from lpsnet.data.frames import Source

FOLDER = "pictures"
INDEX = "pictures.json"
WIDTH = 400
"""Pixels a picture is at most wide."""

VOID = (0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A network of the chain to show pictures of: its name, its step, and, where it was remembered, its architecture."""

    name: str
    step: int
    architecture: str = ""


@dataclass(frozen=True, kw_only=True)
class PicturePlan:
    """Which pictures.

    Args:
        picks: networks; by default three spread over those whose weights are at hand.
        frames: how many, spread over the validation split; 0 for no pictures.
        data: where the run's data set lies now; empty for where it lay.
        folder: of the report; the pictures are kept below it.
    """

    picks: tuple[Pick, ...] = ()
    frames: int = 4
    data: str = ""
    folder: Path


@dataclass(frozen=True)
class _Shown:
    """A network whose weights are at hand."""

    pick: Pick
    weights: Path
    sha256: str


def pictures_section(facts: RunFacts, plan: PicturePlan, observer: Observer) -> Section:
    """Input, label and predictions; what cannot be shown becomes an omission of `facts`, and the section says why."""
    section = Section(key="pictures", title="What the networks see")
    if not plan.frames:
        return dataclasses.replace(section, text=("No pictures were asked for (--frames 0).",))
    try:
        shown = _networks(facts, plan.picks)
        gallery = _kept(facts, plan, shown) or _predicted(facts, plan, shown, observer)
    except UserError as error:
        facts.omissions.append(Omission("pictures", "", str(error)))
        return dataclasses.replace(section, text=(f"There are no pictures: {error}",))
    return dataclasses.replace(section, items=(gallery,))


def check_plan(facts: RunFacts, plan: PicturePlan) -> None:
    """Raises `UserError` for a step that the chain does not have, and for a data set that is named but cannot be had."""
    if plan.data and plan.frames:
        _source(facts, plan)
    for pick in plan.picks:
        if not pick.architecture and not 0 <= pick.step < len(facts.steps):
            raise UserError(f"--pick {pick.name}={pick.step}: the chain has the steps 0 to {len(facts.steps) - 1}")


def _networks(facts: RunFacts, picks: tuple[Pick, ...]) -> list[_Shown]:
    """The networks to show: those picked, or three of those at hand. Raises `UserError` where none is."""
    at_hand: dict[int, _Shown] = {}
    for step, record in facts.members:
        path = facts.run.weights_path(step.chosen.architecture)
        if record.weights_sha256 and digest_of(path) == record.weights_sha256:
            at_hand[step.number] = _Shown(Pick(name=f"step {step.number}", step=step.number), path, record.weights_sha256)
    if not picks:
        if not at_hand:
            raise UserError(f"the trained weights of no network of the chain lie in {facts.run.checkpoints}")
        numbers = sorted(at_hand)
        return [at_hand[number] for number in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]})]
    shown = [one for pick in picks if (one := _picked(facts, pick, at_hand)) is not None]
    if not shown:
        raise UserError("the trained weights of no picked network lie in the run's folder")
    return shown


def _picked(facts: RunFacts, pick: Pick, at_hand: dict[int, _Shown]) -> _Shown | None:
    """A pick with the weights of its full training, else of the search's; None, and an omission of `facts`, where neither will do."""
    if pick.architecture and (why := why_stale(facts.steps, pick.step, pick.architecture)):
        facts.omissions.append(Omission("pictures", pick.name, f"it {why}"))
        return None
    try:
        full = full_training(facts, str(facts.steps[pick.step].chosen.architecture))
    except UserError:  # the section of the picks tells
        full = None
    if full is not None and full.data == facts.data:
        return _Shown(dataclasses.replace(pick, name=f"{pick.name}, trained fully"), full.weights, full.sha256)
    if pick.step not in at_hand:
        facts.omissions.append(Omission("pictures", f"{pick.name} (step {pick.step})", "its trained weights are not in the run's folder"))
        return None
    return dataclasses.replace(at_hand[pick.step], pick=pick)


def _key(facts: RunFacts, plan: PicturePlan, shown: list[_Shown]) -> dict[str, Any]:
    """What the pictures hang on: kept ones are shown again only where all of it is as it was."""
    config = facts.run.config
    return {"data": plan.data or config.data, "size": list(config.size), "frames": plan.frames, "weights": [one.sha256 for one in shown]}


def _kept(facts: RunFacts, plan: PicturePlan, shown: list[_Shown]) -> Gallery | None:
    """The pictures of an earlier report, None where there are none or they were of something else."""
    folder = plan.folder / FOLDER
    try:
        told = parse_json((folder / INDEX).read_text())
        if told["key"] != _key(facts, plan, shown):
            return None
        frames = [(str(frame["name"]), [float(share) for share in frame["right"]]) for frame in told["frames"]]
        legend = tuple((str(name), _rgb(colour)) for name, colour in told["legend"])
        rows = []
        for number, (name, right) in enumerate(frames):
            files = _files(number, len(shown))
            data = [(folder / file).read_bytes() for file in files]
            rows.append((name, _row(name, files, data, shown, right)))
        return _gallery(facts, rows, legend, plan)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _rgb(values: Any) -> tuple[int, int, int]:
    red, green, blue = (int(value) & 255 for value in values)
    return red, green, blue


def _files(number: int, networks: int) -> list[str]:
    """Names of a frame's pictures, in the order they are shown."""
    return [f"frame-{number}-{what}" for what in ("input.jpg", "label.png", *(f"{place}.png" for place in range(networks)))]


def _predicted(facts: RunFacts, plan: PicturePlan, shown: list[_Shown], observer: Observer) -> Gallery:
    """Predict the pictures and keep them. Raises `UserError` where the data set is not at hand."""
    import numpy as np

    from lpsnet.checkpoint import CheckpointError
    from search.prediction import TorchModel

    source = _source(facts, plan)
    models = []
    for one in shown:
        try:
            models.append(TorchModel(str(one.weights), "", "cpu", facts.run.config.size))
        except (CheckpointError, RuntimeError) as error:
            raise UserError(f"{one.weights} cannot be loaded: {error}") from error
    palette = np.zeros((256, 3), np.uint8)
    palette[:] = VOID
    palette[: len(source.colours)] = source.colours
    written: dict[str, bytes] = {}
    rows, frames = [], []
    chosen = sorted(set(np.linspace(0, len(source) - 1, min(plan.frames, len(source))).astype(int).tolist()))
    for number, index in enumerate(chosen):
        observer.work("frames", number, len(chosen), source.name_of(index))
        image, label = source.decode(index)
        predictions = [model.labels(image) for model in models]
        right = [_right(prediction, label) for prediction in predictions]
        data = [_jpeg(image), *(_png(mask, palette) for mask in (label, *predictions))]
        files, name = _files(number, len(shown)), Path(source.name_of(index)).name
        written.update(zip(files, data, strict=True))
        frames.append({"name": name, "right": right})
        rows.append((name, _row(name, files, data, shown, right)))
    observer.work("frames", len(chosen), len(chosen))
    legend = tuple(zip(source.class_names, source.colours, strict=True))
    _keep(plan.folder / FOLDER, written, {"key": _key(facts, plan, shown), "frames": frames, "legend": legend})
    return _gallery(facts, rows, legend, plan)


def _source(facts: RunFacts, plan: PicturePlan) -> Source:
    config = facts.run.config
    spec = DataSpec.parse(plan.data or config.data)
    if spec.name != facts.data:
        raise UserError(f"--data {spec}: the run is of {facts.data}")
    try:
        source = DATASETS[spec.name].open(spec.path, "val", config.size)
    except UserError as error:
        raise UserError(f"the data set is not at hand: {error}; --data says where it lies") from error
    if source.class_names != facts.run.class_names:
        raise UserError(f"{spec} has other classes than the run")
    return source


def _keep(folder: Path, files: dict[str, bytes], told: dict[str, Any]) -> None:
    """Write the pictures, and last what tells that they are whole."""
    try:
        (folder / INDEX).unlink(missing_ok=True)
        for name, data in files.items():
            replace_file(folder / name, data)
        replace_file(folder / INDEX, (json.dumps(told, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error}; name another folder with --out") from error


def _right(prediction: np.ndarray, label: np.ndarray) -> float:
    """Percent of the labelled pixels that are predicted right; 0 where none is labelled."""
    from lpsnet.data.frames import IGNORE_INDEX

    counted = label != IGNORE_INDEX
    return float(100 * (prediction[counted] == label[counted]).mean()) if counted.any() else 0.0


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((WIDTH, image.shape[0]))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=82)
    return file.getvalue()


def _png(mask: np.ndarray, palette: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(mask)
    picture.putpalette(palette.tobytes())
    picture.thumbnail((WIDTH, mask.shape[0]), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _row(name: str, files: list[str], data: list[bytes], shown: list[_Shown], right: list[float]) -> tuple[Picture, ...]:
    titles = ["input", "label", *(f"{one.pick.name}: {share:.1f} %" for one, share in zip(shown, right, strict=True))]
    told = [f"Frame {name}", f"Labels of frame {name}"]
    told += [f"Prediction of {one.pick.name} for frame {name}, {share:.1f} % right" for one, share in zip(shown, right, strict=True)]
    parts = zip(files, data, titles, told, strict=True)
    return tuple(
        Picture(
            file=f"{FOLDER}/{file}",
            mime="image/jpeg" if file.endswith(".jpg") else "image/png",
            data=content,
            title=title,
            description=text,
        )
        for file, content, title, text in parts
    )


def _gallery(facts: RunFacts, rows: list[Any], legend: tuple[tuple[str, tuple[int, int, int]], ...], plan: PicturePlan) -> Gallery:
    return Gallery(
        key="gallery",
        title="Frames of the validation split: input, label, predictions",
        rows=tuple(rows),
        legend=(*legend, ("not labelled", VOID)),
        note="Percent: labelled pixels predicted right in this frame. Weights are of the short training where no full one is told. "
        f"Frames: {DATASETS[facts.data].licence}.",
    )
