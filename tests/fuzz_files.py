"""What else is fuzzed: data sets, images, checkpoints, states of trainings, graphs, what describes engines, videos."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fuzz import Attempt, Target
from tests.fuzz_mutations import as_json, json_like, mutate_bytes, mutate_text, mutate_value
from tests.fuzz_pages import pages

TINY = "B1-1-1-1-1_C1-1-1-1-1_R8"


def descriptions(folder: Path) -> Attempt:
    import yaml

    from lpsnet.data.folder import read_description

    path = folder / "dataset.yaml"
    values = {
        "classes": [{"name": "floor", "colour": [90, 90, 90]}, {"name": "pallet", "category": "x"}, "wall"],
        "ignore": [255, 254],
        "size": [72, 128],
        "images": "images/{split}",
        "masks": "masks/{split}",
    }
    text = yaml.safe_dump(values)
    bombs = (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "classes: [*i]\n",
        "classes: &a [*a]\n",
        "classes: " + "[" * 40_000,
        "classes: [!!python/object/apply:os.system ['touch /tmp/owned']]\n",
        *(
            f"classes: [a]\nsize: {bad}\n"
            for bad in (
                "2026-99-99",
                "!!int ''",
                "!!float x",
                "!!timestamp x",
                "!!bool x",
                "!!binary x",
                "0x" + "f" * 9000,
                "1:" * 500 + "1",
            )
        ),
        "? {a: b}\n: c\n",
        "classes: [a]\n" + "0x" + "f" * 9000 + ": 1\n",
    )

    def attempt(rng: random.Random) -> None:
        read_description.cache_clear()
        kind = rng.random()
        if kind < 0.1:
            path.write_bytes(mutate_bytes(rng, rng.choice(bombs).encode()) if kind < 0.05 else rng.choice(bombs).encode())
        elif kind < 0.6:
            path.write_bytes(as_json(mutate_value(rng, values)))  # JSON is YAML
        else:
            path.write_bytes(mutate_text(rng, text).encode(errors="surrogatepass"))
        read_description(folder)

    return attempt


def _picture(kind: str, mode: str, size: tuple[int, int] = (9, 7)) -> bytes:
    file, rng = io.BytesIO(), np.random.default_rng(0)
    channels = {"L": (), "P": (), "RGB": (3,), "RGBA": (4,), "LA": (2,), "CMYK": (4,)}
    if mode in channels:
        made = Image.fromarray(rng.integers(0, 3, (size[1], size[0], *channels[mode]), dtype=np.uint8), "L" if mode == "P" else mode)
    else:
        made = Image.fromarray(rng.integers(0, 60_000, (size[1], size[0]), dtype=np.uint16))
    if mode == "P":
        made = made.convert("P")
    made.save(file, kind)
    return file.getvalue()


def images(folder: Path) -> Attempt:
    from lpsnet.data.files import read_colours, read_image, read_mask

    path = folder / "image.png"
    pictures = [_picture("PNG", mode) for mode in ("L", "P", "RGB", "RGBA", "LA", "I;16")]
    pictures += [_picture("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    others = [_picture(kind, "RGB") for kind in ("GIF", "BMP", "TIFF", "WEBP", "PPM", "EPS")]
    table = {(red, green, blue): 0 for red in range(3) for green in range(3) for blue in range(3)}

    def attempt(rng: random.Random) -> None:
        data = rng.choice(pictures) if rng.random() < 0.9 else rng.choice(others)
        if data[1:4] == b"PNG" and rng.random() < 0.3:
            data = _png_with(rng, data)
        path.write_bytes(mutate_bytes(rng, data) if rng.random() < 0.9 else data)
        rng.choice((read_image, read_mask, lambda path: read_colours(path, table)))(path)

    return attempt


def _png_with(rng: random.Random, data: bytes) -> bytes:
    """A PNG that says it is of another size, or with a chunk more, and right check sums."""
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = bytearray(data[16:29])
    if rng.random() < 0.6:
        head[: 4 * rng.choice((1, 2))] = struct.pack(">II", *(rng.choice((0, 1, 7, 9000, 13_000, 65_535, 2**31 - 1)) for _ in "xy"))[
            : 4 * rng.choice((1, 2))
        ].ljust(4, b"\0")
        head = head[:13]
    body = rng.choice((b"", b"x\0\0" + zlib.compress(bytes(2**21)), b"\0" * 9, rng.randbytes(30)))
    more = chunk(rng.choice((b"zTXt", b"iTXt", b"iCCP", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"eXIf", b"gAMA")), body)
    return data[:8] + chunk(b"IHDR", bytes(head)) + more + data[33:]


def data_folders(folder: Path) -> Attempt:
    """Small data sets in which files were lost, moved, changed or are of other kinds."""
    from lpsnet.data import DataSpec, native_size, open_split
    from lpsnet.data.folder import read_description
    from tests.tiny import write_camvid

    camvid, own, at = write_camvid(folder / "camvid", {"train": 1, "val": 1}, (8, 12)), folder / "own", folder / "changed"
    for what, where in (("train", "images/train"), ("trainannot", "masks/train"), ("val", "images/val"), ("valannot", "masks/val")):
        shutil.copytree(camvid / what, own / where)
    (own / "dataset.yaml").write_text("classes: [" + ", ".join(f"c{index}" for index in range(12)) + "]\n")

    def attempt(rng: random.Random) -> None:
        name, source = rng.choice((("camvid", camvid), ("folder", own)))
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(source, at)
        for _ in range(rng.choice((1, 1, 2))):
            _change(rng, at)
        read_description.cache_clear()
        spec = DataSpec.parse(f"{name}:{at}")
        native_size(spec)
        frames = open_split(spec, rng.choice(("train", "val", "test", "../val")), (8, 12))
        frames.hold()
        frames.batch([0])

    return attempt


def _change(rng: random.Random, root: Path) -> None:
    path = rng.choice(sorted(root.rglob("*")))
    change = rng.randrange(6)
    if path.is_dir():
        shutil.rmtree(path) if change < 3 else path.rename(path.with_name(rng.choice(("other", "Train", "ï")) + path.name))
    elif change == 0:
        path.unlink()
    elif change == 1:
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
    elif change == 2:
        path.write_bytes(_picture("PNG", rng.choice(("L", "RGB", "I;16")), rng.choice(((12, 8), (1, 1), (900, 2)))))
    elif change == 3:
        path.rename(path.with_suffix(rng.choice((".PNG", ".jpg", ".txt", ""))))
    elif change == 4:
        path.unlink()
        path.symlink_to(rng.choice(("/dev/null", "/etc/passwd", str(path), "..")))
    else:
        path.unlink()
        path.mkdir()


def checkpoints(folder: Path) -> Attempt:
    import torch

    from lpsnet.checkpoint import load, read_metadata, save
    from lpsnet.network import LPSNet
    from search.cards import card

    path = folder / "n.safetensors"
    torch.manual_seed(0)
    metrics = {"miou_percent": 50.0, "class_iou_percent": [50.0, None]}
    save(
        path, LPSNet(TINY, 2, deployed=True), class_names=("a", "b"), input_size=(32, 32), metrics=metrics, provenance={"splits": ["train"]}
    )
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    told = json.loads(header["__metadata__"]["lps_net"])

    def attempt(rng: random.Random) -> None:
        kind = rng.random()
        if kind < 0.5:  # a sound file that says odd things
            text = json_like(rng, told).decode(errors="replace")
            head = json.dumps({**header, "__metadata__": {"lps_net": text}}).encode()
        elif kind < 0.75:
            head = json_like(rng, header)
        else:
            path.write_bytes(mutate_bytes(rng, data))
        if kind < 0.75:
            path.write_bytes(struct.pack("<Q", rng.choice((len(head),) * 9 + (2**63, 0))) + head + body)
        if rng.random() < 0.5:
            card(path.name, read_metadata(path))
        load(path)

    return attempt


class _Runs:
    """A value whose pickle runs a command where it is believed."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        import os

        return os.system, (self._command,)


def pickles(folder: Path) -> Attempt:
    """Released checkpoints and states of trainings, also compressed ones, views of nothing, and pickles that run a command."""
    import torch

    from lpsnet.checkpoint import load
    from lpsnet.network import LPSNet
    from lpsnet.resume import Keeper

    path, mark = folder / "n.pth", folder / "executed"
    state = OrderedDict((name.replace("paths.0.", "net."), tensor) for name, tensor in LPSNet(TINY, 2, deployed=True).state_dict().items())
    odd: list[Any] = [state, {"format": "lps-training-1", "identity": {"seed": 1}, "state": {"iteration": 1}}]
    odd += [
        {**state, "head.weight": torch.zeros(1).expand(10**9, 1, 1, 1)},
        {**state, "head.weight": torch.zeros(2, 1, 1, 1, dtype=torch.complex64)},
    ]
    odd += [
        {**state, "head.weight": state["head.weight"].to_sparse()},
        {**state, 5: 1},
        [state],
        {"format": "lps-training-1", "identity": 5, "state": []},
    ]
    files = [_saved(value, zipped) for value in odd for zipped in (True, False)]
    files += [_packed(files[0]), pickle.dumps(_Runs(f"touch {mark}")), pickle.dumps({"head.weight": _Runs(f"touch {mark}")})]

    def attempt(rng: random.Random) -> None:
        data = rng.choice(files)
        path.write_bytes(mutate_bytes(rng, data) if rng.random() < 0.9 else data)
        try:
            load(path, TINY) if rng.random() < 0.7 else Keeper(path, {"seed": 1}).load()
        finally:
            assert not mark.exists(), "a pickle was executed"

    return attempt


def _saved(value: Any, zipped: bool) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _packed(data: bytes) -> bytes:
    """The same archive, compressed, with a member of many zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for one in source.infolist():
            target.writestr(one.filename, source.read(one) + bytes(2**22 if "/data/" in one.filename else 0))
    return file.getvalue()


def graphs(folder: Path) -> Attempt:
    from latency.graph import read_graph
    from latency.protocols import MeasurementFailed
    from lpsnet.errors import UserError
    from tests.graphs import write_foreign

    path = folder / "n.onnx"
    files = [write_foreign(path, shape, operator=operator).read_bytes() for shape in (None, [1, 16, 16, 3]) for operator in ("", "Odd")]

    def attempt(rng: random.Random) -> None:
        path.write_bytes(mutate_bytes(rng, rng.choice(files)))
        try:
            read_graph(path, (16, 16))
        except MeasurementFailed as failure:  # as `compare` has it
            raise UserError(str(failure)) from failure

    return attempt


def exports(folder: Path) -> Attempt:
    """Graphs that `predict` runs, whose descriptions say odd things, and descriptions of engines."""
    from contextlib import ExitStack

    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from latency.engine_check import read_engine
    from search.prediction import open_model

    path, engine = folder / "n.onnx", folder / "n.engine"
    kernel = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "kernel")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, 16, 16]) for name, count in (("image", 3), ("scores", 2))]
    graph = helper.make_graph([helper.make_node("Conv", ["image", "kernel"], ["scores"])], "n", ends[:1], ends[1:], [kernel])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    told = {"size": [16, 16], "classes": 2, "normalised": False, "precision": "fp32", "boundary": "scores"}
    told |= {"class_names": ["a", "b"], "colours": [[1, 2, 3], [4, 5, 6]]}
    built = {"flavour": "tensorrt-rtx", "version": "1", "compute_capabilities": ["8.6"], "sha256": "0", "graph": "n.onnx"}
    image = np.zeros((5, 6, 3), np.uint8)
    engine.write_bytes(b"engine")

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.5:
            (folder / "n.engine.json").write_bytes(json_like(rng, built))
            read_engine(engine, "8.6")
        (folder / "n.onnx.json").write_bytes(json_like(rng, told))
        with ExitStack() as stack:
            open_model(str(path), "", "cpu", None, stack).labels(image)

    return attempt


def videos(folder: Path) -> Attempt:
    from fractions import Fraction

    from search.video import VideoWriter, read_video

    path = folder / "film.mp4"
    with VideoWriter(path, Fraction(25)) as writer:
        for shade in (0, 128):
            writer.add(np.full((16, 16, 3), shade, np.uint8))
    data = path.read_bytes()
    lists = (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", b"ffconcat version 1.0\nfile /etc/passwd\n")

    def attempt(rng: random.Random) -> None:
        path.write_bytes(mutate_bytes(rng, rng.choice((data,) * 9 + lists)))
        with read_video(path) as video:
            for number, frame in enumerate(video):
                assert frame.ndim == 3 and frame.shape[2] == 3
                if number > 20:
                    break

    return attempt


def records(folder: Path) -> Attempt:
    from search.compare_record import FILE, ReadRecord, Record

    turn = {"samples_ms": [1.5, 1.25], "found": {"state": {"pace_ms": 0.5}}, "output": "1x64x96 int64", "memory_bytes": None}
    facts = [
        {"key": {"what": "latency", "network": "N0"}, "fact": {"latency_ms": 1.5, "stable": True}, "seconds": 2.5},
        {"key": {"what": "turn", "round": 0}, "fact": turn},
        {"key": {"a": [1, 2]}, "fact": {"failure": "no"}},
    ]

    def attempt(rng: random.Random) -> None:
        lines = [json_like(rng, fact) if rng.random() < 0.5 else as_json(fact) for fact in facts]
        (folder / FILE).write_bytes(b"\n".join(lines) + rng.choice((b"\n", b"")))
        for key in [fact["key"] for fact in facts]:
            ReadRecord(folder).find(key)
        opened = Record(folder)
        opened.has_success()
        opened.close()

    return attempt


FILES = (
    Target("record", 50_000, records, "record.jsonl of compare and ablate"),
    Target("dataset.yaml", 10_000, descriptions, "dataset.yaml of a folder"),
    Target("image", 17_000, images, "images, masks and colour masks"),
    Target("data folder", 1_300, data_folders, "folders of CamVid's layout and of one's own"),
    Target("checkpoint", 20_000, checkpoints, "checkpoints (safetensors), model cards"),
    Target("pickle", 10_000, pickles, "released .pth files, states of trainings"),
    Target("graph", 3_000, graphs, "ONNX files of any tool"),
    Target("export", 800, exports, "descriptions of exported graphs and engines"),
    Target("video", 800, videos, "videos"),
    Target("page", 300, pages, "strings on the report's page and in its Markdown"),
)
