"""Pictures of what a network sees: overlays and masks of images, folders and videos, with the time each frame took.

The network is a checkpoint (run by torch), an ONNX graph that `export` wrote (ONNX Runtime), or an engine (TensorRT).
Running an engine is not yet executed on a GPU.
"""

from __future__ import annotations

import csv
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from latency.protocols import BackendError, MeasurementFailed
from latency.told import parse_json
from lpsnet.checkpoint import load, read_description
from lpsnet.data import MOST_CLASSES, check_class_names
from lpsnet.data.augment import normalise
from lpsnet.data.files import IMAGE_SUFFIXES, read_image
from lpsnet.data.folder import default_colour
from lpsnet.data.normalisation import MEAN, STD
from lpsnet.errors import UserError
from lpsnet.evaluation import predict as predict_logits
from lpsnet.metadata import MOST_EXTENT, check_colours
from lpsnet.zoo import check_size
from search.observer import Observer
from search.video import VIDEO_SUFFIXES, VideoWriter, can_read_videos, read_video

OPACITY = 0.55
"""Share of the class's colour in an overlay."""

OVERLAY, MASK, LEGEND = "_overlay", "_mask", "legend.png"
"""Ends of the names of what is written, and the name of the picture of the classes."""

Colours = tuple[tuple[int, int, int], ...]


class Model(Protocol):
    """A network that labels one image at a time."""

    class_names: tuple[str, ...]
    colours: Colours

    def labels(self, image: np.ndarray) -> np.ndarray:
        """Class indices (H, W), uint8, of an RGB image (H, W, 3), uint8."""
        ...


class TorchModel:
    """A checkpoint in its deployed form."""

    def __init__(self, source: str, architecture: str, device: str, size: tuple[int, int] | None) -> None:
        network, told = load(source, architecture or None), read_description(source)
        self._network, self._device = network.deploy().eval().to(device), device
        self._size = size or (told.input_size if told else None)
        if self._size is not None:
            check_size(network, self._size)  # found now, not at every image
        self.class_names, self.colours = _described(network.num_classes, told.class_names if told else (), told.colours if told else ())

    def labels(self, image: np.ndarray) -> np.ndarray:
        """See `Model.labels`."""
        own = (image.shape[0], image.shape[1])
        with torch.inference_mode():
            images = normalise(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(self._device))
            logits = predict_logits(self._network, images, self._size or own, own)
            return np.asarray(logits.max(1).indices[0].cpu().numpy().astype(np.uint8))


class GraphModel:
    """What `lps-search export` wrote, run by a function from its input to its output.

    Args:
        told: the description beside the file.
        run: the output for an input of the graph's own shape and type.
    """

    def __init__(self, told: dict[str, Any], run: Callable[[np.ndarray], np.ndarray]) -> None:
        self._told, self._run = told, run
        self._size: tuple[int, int] = (int(told["size"][0]), int(told["size"][1]))
        if not all(1 <= extent <= MOST_EXTENT for extent in self._size):
            raise ValueError(f"a size is two numbers of pixels from 1 to {MOST_EXTENT}, found {self._size}")
        count, given = int(told["classes"]), told.get("class_names", ())
        names = check_class_names(given or tuple(f"class {index}" for index in range(min(count, MOST_CLASSES + 1))))
        self.class_names, self.colours = _described(len(names), names, check_colours(told.get("colours", ()), len(names)))

    def labels(self, image: np.ndarray) -> np.ndarray:
        """See `Model.labels`."""
        height, width = self._size
        fitted = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        entered = fitted.transpose(2, 0, 1)[None]
        if not self._told["normalised"]:
            mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
            entered = (entered.astype(np.float32) / 255 - mean) / std
            entered = entered.astype(np.float16 if self._told["precision"] == "fp16" else np.float32)
        output = self._run(np.ascontiguousarray(entered))
        wanted = (1, ...) if self._told["boundary"] == "labels" else (1, len(self.class_names), ...)
        if output.ndim != (3 if self._told["boundary"] == "labels" else 4) or output.shape[: len(wanted) - 1] != wanted[:-1]:
            raise UserError(f"the graph gives {list(output.shape)}, which its description does not tell; export the network anew")
        if self._told["boundary"] != "labels":
            scores = torch.from_numpy(output.astype(np.float32))
            grown = torch.nn.functional.interpolate(scores, size=image.shape[:2], mode="bilinear", align_corners=True)
            return np.asarray(grown.max(1).indices[0].numpy().astype(np.uint8))
        found = Image.fromarray(output[0].astype(np.uint8))
        return np.asarray(found.resize((image.shape[1], image.shape[0]), Image.Resampling.NEAREST))


def open_model(source: str, architecture: str, device: str, size: tuple[int, int] | None, stack: ExitStack) -> Model:
    """The network that a file or name stands for; what must be closed again is left to `stack`.

    Raises:
        UserError: a file that cannot be used; the message says why.
        BackendError: an engine that may not run here.
    """
    suffix = Path(source).suffix
    if suffix not in (".onnx", ".engine"):
        return TorchModel(source, architecture, device, size)
    if size is not None:
        raise UserError(f"{source} was exported for one size; leave out --input")
    if suffix == ".onnx":
        return _graph(Path(source))
    return _engine(Path(source), stack)


def _graph(path: Path) -> GraphModel:
    import onnxruntime

    told = _description(path)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime exports no common base class of its errors
        raise UserError(f"{path} cannot be loaded: {' '.join(str(error).split())}") from error

    def run(entered: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(session.run(None, {"image": entered})[0])
        except Exception as error:  # as above
            raise UserError(f"{path} does not take what its description tells: {' '.join(str(error).split())}") from error

    return _graph_model(path, told, run)


def _graph_model(path: Path, told: dict[str, Any], run: Callable[[np.ndarray], np.ndarray]) -> GraphModel:
    try:
        return GraphModel(told, run)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(f"the description beside {path} makes no sense: {error!r}; export the network anew") from error


def _engine(path: Path, stack: ExitStack) -> GraphModel:
    from latency.backends.trt import open_engine
    from latency.engine_check import read_engine
    from latency.state import compute_capability

    data, description = read_engine(path, compute_capability())
    graph = Path(str(description.get("graph"))).name
    if graph != description.get("graph"):
        raise UserError(f"{path}: its description names the graph {description.get('graph')!r}, which is no file beside it")
    told = _description(path.with_name(graph))
    try:
        session = stack.enter_context(open_engine(description["flavour"], data, description))
    except MeasurementFailed as failure:
        raise BackendError(str(failure)) from failure
    return _graph_model(path, told, session.infer)


def _description(path: Path) -> dict[str, Any]:
    beside = path.with_name(path.name + ".json")
    try:
        told: dict[str, Any] = dict(parse_json(beside.read_text()))
        missing = {"size", "classes", "normalised", "precision", "boundary"} - set(told)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} needs the description that lps-search export writes beside it, {beside.name}: {error}") from error
    if missing:
        raise UserError(f"{beside} lacks {', '.join(sorted(missing))}; export the network anew")
    return told


def _described(count: int, names: tuple[str, ...], colours: Any) -> tuple[tuple[str, ...], Colours]:
    """Names and colours of the classes, made up where nothing tells them."""
    return names or tuple(f"class {index}" for index in range(count)), tuple(colours) or tuple(default_colour(i) for i in range(count))


@dataclass
class FrameTime:
    """Milliseconds that the parts of one frame took."""

    frame: str
    read_ms: float
    infer_ms: float
    write_ms: float = field(default=0.0)


def predict_files(model: Model, inputs: list[Path], out: Path, observer: Observer) -> tuple[list[FrameTime], list[str]]:
    """Label images, videos and folders of both into `out`; returns the time of each frame, and what is wrong with what cannot be read.

    Writes for an image `NAME_overlay.png` and `NAME_mask.png` (class indices), for a video `NAME_overlay.mp4`, and once
    `legend.png` and `times.csv`.

    Raises:
        UserError: nothing to read, or a folder that cannot be written.
    """
    images, videos = _sorted_inputs(inputs, out, observer)
    times: list[FrameTime] = []
    faults: list[str] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        draw_legend(model).save(out / LEGEND)
        for path, name in zip(images + videos, distinct_names(images) + distinct_names(videos), strict=True):
            try:
                if path in videos:
                    for one in _label_video(model, path, name, out, observer):
                        times.append(one)  # one by one: those before a damaged frame are kept
                else:
                    times.append(_label_image(model, path, name, out))
                    observer.work("frames", len(times), len(images))
            except UserError as error:  # the others go on
                faults.append(str(error))
        with (out / "times.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["frame", "read_ms", "infer_ms", "write_ms"])
            writer.writerows([one.frame, *(f"{value:.3f}" for value in (one.read_ms, one.infer_ms, one.write_ms))] for one in times)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    return times, faults


def _sorted_inputs(inputs: list[Path], out: Path, observer: Observer) -> tuple[list[Path], list[Path]]:
    """Images and videos; what an earlier call left in `out` is found in no folder."""
    images: list[Path] = []
    videos: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = [inner for inner in sorted(path.rglob("*")) if not _is_output(inner, out)]
            found = [inner for inner in inside if inner.suffix.lower() in IMAGE_SUFFIXES]
            films = [inner for inner in inside if inner.suffix.lower() in VIDEO_SUFFIXES]
            if not found and not films:
                raise UserError(f"{path} holds no image or video; looked for {', '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)}")
            if found and films and not can_read_videos():
                observer.note(f"{len(films)} videos in {path} are left out; pip install 'lps-search[video]' brings what reads them")
                films = []
            images += found
            videos += films
        elif not path.is_file():
            raise UserError(f"no such file: {path}")
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            videos.append(path)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(path)
        else:
            raise UserError(f"{path} is neither an image ({', '.join(IMAGE_SUFFIXES)}) nor a video ({', '.join(VIDEO_SUFFIXES)})")
    return images, videos


def _is_output(path: Path, out: Path) -> bool:
    """Whether a file may be what `predict_files` wrote: it lies in `out`, and is called so."""
    return path.resolve().parent == out.resolve() and (path.name == LEGEND or path.stem.endswith((OVERLAY, MASK)))


def distinct_names(paths: list[Path]) -> list[str]:
    """What the files of each image or video are called: its stem, with what tells it from others where these have the same."""
    if not paths:
        return []
    stems = Counter(path.stem for path in paths)
    root = os.path.commonpath([path.resolve().parent for path in paths])
    names: list[str] = []
    for path in paths:
        name = path.stem
        if stems[name] > 1:
            name = "_".join([*path.resolve().parent.relative_to(root).parts, path.stem, path.suffix[1:]])
        number, own = 1, name
        while own in names:
            number += 1
            own = f"{name}_{number}"
        names.append(own)
    return names


def _label_image(model: Model, path: Path, name: str, out: Path) -> FrameTime:
    start = time.perf_counter()
    image = read_image(path)
    read = time.perf_counter()
    labels = model.labels(image)
    inferred = time.perf_counter()
    overlay(image, labels, model.colours).save(out / f"{name}{OVERLAY}.png")
    Image.fromarray(labels).save(out / f"{name}{MASK}.png")
    return FrameTime(str(path), (read - start) * 1e3, (inferred - read) * 1e3, (time.perf_counter() - inferred) * 1e3)


def _label_video(model: Model, path: Path, name: str, out: Path, observer: Observer) -> Iterator[FrameTime]:
    with read_video(path) as video, VideoWriter(out / f"{name}{OVERLAY}.mp4", video.rate) as writer:
        start = time.perf_counter()
        for index, image in enumerate(video):
            read = time.perf_counter()
            labels = model.labels(image)
            inferred = time.perf_counter()
            writer.add(np.asarray(overlay(image, labels, model.colours)))
            observer.work("frames", index + 1, max(video.count, index + 1))
            yield FrameTime(f"{path} {index}", (read - start) * 1e3, (inferred - read) * 1e3, (time.perf_counter() - inferred) * 1e3)
            start = time.perf_counter()


def overlay(image: np.ndarray, labels: np.ndarray, colours: Colours) -> Image.Image:
    """An image with the colours of its labels laid over it."""
    table = np.zeros((256, 3), np.float32)
    table[: len(colours)] = colours
    mixed = (1 - OPACITY) * image + OPACITY * table[labels]
    return Image.fromarray(mixed.round().astype(np.uint8))


def draw_legend(model: Model) -> Image.Image:
    """The classes with their colours."""
    row, width = 26, 40 + 9 * max(map(len, model.class_names))
    picture = Image.new("RGB", (width, row * len(model.class_names) + 8), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 12)
    for index, (name, colour) in enumerate(zip(model.class_names, model.colours, strict=True)):
        pen.rectangle((8, 8 + row * index, 28, 26 + row * index), fill=colour, outline="black")
        pen.text((36, 10 + row * index), name, fill="black", font=font)
    return picture
