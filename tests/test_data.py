"""Data sets: their names, the synthetic scenes, CamVid's folder, and frames at one input size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lpsnet.data import DATASETS, DataSpec, open_split
from lpsnet.data.camvid import CamVid
from lpsnet.data.frames import IGNORE_INDEX, Batch, DataError, Frames
from lpsnet.data.synthetic import CLASS_NAMES as SYNTHETIC_NAMES
from lpsnet.data.synthetic import POLE, SPLIT_SIZES, Synthetic
from lpsnet.errors import UserError

MakeCamVid = Callable[..., Path]


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


# Names


@pytest.mark.parametrize("text", ["synthetic", "camvid:data/camvid", "camvid:/a b/c", "camvid:C:\\data", "camvid:~/camvid"])
def test_a_data_set_is_read_from_its_text_and_printed_back(text: str) -> None:
    assert str(DataSpec.parse(text)) == text
    assert DataSpec.parse(str(DataSpec.parse(text))) == DataSpec.parse(text)


def test_the_text_is_name_and_path() -> None:
    assert DataSpec.parse("camvid:C:\\data") == DataSpec("camvid", "C:\\data")
    assert DataSpec.parse("synthetic") == DataSpec("synthetic", None)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pascal", ("unknown data set 'pascal'", *DATASETS)),
        ("", ("unknown data set ''", *DATASETS)),
        ("CamVid:data", ("unknown data set 'CamVid'", *DATASETS)),
        ("camvid", ("'camvid' needs its folder", "camvid:PATH")),
        ("camvid:", ("'camvid' needs its folder", "camvid:PATH")),
        ("synthetic:data", ("'synthetic' takes no path", "'data'")),
    ],
)
def test_a_text_of_no_data_set_is_refused(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as refusal:
        DataSpec.parse(text)
    for part in parts:
        assert part in str(refusal.value)


def test_a_path_may_start_at_home(make_camvid: MakeCamVid, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_camvid()
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(open_split(DataSpec.parse("camvid:~/camvid"), "train", (16, 24))) == 4


# Synthetic scenes


def test_a_frame_is_the_same_wherever_it_is_drawn() -> None:
    one, other = Synthetic("val", (48, 96)), Synthetic("val", (48, 96))
    drawn = [other.decode(index) for index in (3, 1, 3)]
    for index, (image, label) in zip((3, 1, 3), drawn, strict=True):
        expected_image, expected_label = one.decode(index)
        assert np.array_equal(image, expected_image) and np.array_equal(label, expected_label)


def test_no_two_frames_of_any_splits_are_equal() -> None:
    frames = [Synthetic(split, (32, 64)).decode(index) for split in SPLIT_SIZES for index in range(12)]
    assert len({image.tobytes() for image, _ in frames}) == len({label.tobytes() for _, label in frames}) == 36


@pytest.mark.parametrize("size", [(128, 256), (32, 64), (17, 31), (64, 1), (1, 64), (1, 1), (256, 64)])
@pytest.mark.filterwarnings("error")
def test_scenes_are_drawn_at_any_size(size: tuple[int, int]) -> None:
    for index in range(5):
        image, label = Synthetic("train", size).decode(index)
        assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
        assert (label.shape, label.dtype) == (size, np.uint8)
        assert label.max() < len(SYNTHETIC_NAMES)


@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_every_class_occurs_in_the_first_frames_of_a_split(split: str) -> None:
    source = Synthetic(split, (128, 256))
    counts = sum(np.bincount(source.decode(index)[1].ravel(), minlength=len(SYNTHETIC_NAMES)) for index in range(12))
    assert len(counts) == len(SYNTHETIC_NAMES)
    assert [name for name, count in zip(SYNTHETIC_NAMES, counts, strict=True) if count == 0] == []


def test_poles_are_a_pixel_or_two_wide_and_much_taller() -> None:
    widths, heights = [], []
    for index in range(12):
        is_pole = Synthetic("train", (128, 256)).decode(index)[1] == POLE
        widths += runs(is_pole)
        heights += runs(is_pole.T)
    assert np.median(widths) <= 2
    assert np.quantile(widths, 0.9) <= 4
    assert np.median(heights) > 4 * np.median(widths)


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the unbroken rows of True."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(int), axis=1)
    return (np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]).tolist()


def test_splits_have_frames_names_and_classes() -> None:
    for split, count in SPLIT_SIZES.items():
        frames = open_split(DataSpec("synthetic"), split, (32, 64))
        assert len(frames) == count >= 60
        assert frames.num_classes == 11
        assert frames.source.name_of(7) == f"synthetic {split} frame 7"


# CamVid's folder


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".jpeg"])
def test_images_may_be_png_or_jpeg(suffix: str, make_camvid: MakeCamVid) -> None:
    source = CamVid(make_camvid(suffix=suffix), "train")
    assert len(source) == 4
    image, label = source.decode(0)
    assert (image.shape, image.dtype) == ((32, 48, 3), np.uint8)
    assert (label.shape, label.dtype) == ((32, 48), np.uint8)


def test_pixels_and_classes_are_those_of_the_files_with_void_ignored(make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    for index in range(2):
        image, label = CamVid(root, "val").decode(index)
        raw = np.asarray(Image.open(root / "valannot" / f"frame{index}.png"))
        assert np.array_equal(image, np.asarray(Image.open(root / "val" / f"frame{index}.png")))
        assert (raw == 11).any()
        assert np.array_equal(label == IGNORE_INDEX, raw == 11)
        assert np.array_equal(label[raw != 11], raw[raw != 11])


def test_a_label_with_a_palette_is_read_by_index(make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    path = root / "trainannot" / "frame0.png"
    raw = np.asarray(Image.open(path))
    image = Image.frombytes("P", (raw.shape[1], raw.shape[0]), raw.tobytes())
    image.putpalette([value for index in range(12) for value in (255 - index, index, 7)])
    image.save(path)
    label = CamVid(root, "train").decode(0)[1]
    assert np.array_equal(label, np.where(raw == 11, 255, raw))


def test_frames_come_in_the_order_of_their_names_and_other_files_do_not_count(make_camvid: MakeCamVid) -> None:
    root = make_camvid({"train": 11})
    (root / "train" / "notes.txt").write_text("no image")
    source = CamVid(root, "train")
    names = [Path(source.name_of(index)).name for index in range(len(source))]
    assert names == sorted(f"frame{index}.png" for index in range(11))


def test_a_test_split_is_read_when_it_is_there(make_camvid: MakeCamVid) -> None:
    root = make_camvid({"train": 1, "val": 1, "test": 3})
    assert [len(open_split(DataSpec("camvid", str(root)), split, (32, 48))) for split in ("train", "val", "test")] == [1, 1, 3]


def refusal(call: Callable[[], object], *parts: object) -> None:
    """`call` is refused with a message that holds all `parts`."""
    with pytest.raises(DataError) as caught:
        call()
    for part in parts:
        assert str(part) in str(caught.value)


def test_a_missing_folder_is_refused_with_what_was_looked_for(make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    refusal(lambda: CamVid(root, "test"), root / "test", "test/", "testannot/", root)
    refusal(lambda: CamVid(root / "elsewhere", "train"), root / "elsewhere" / "train", "train/", "trainannot/")
    (root / "trainannot").rename(root / "labels")
    refusal(lambda: CamVid(root, "train"), root / "trainannot", "train/", "trainannot/")


def test_a_split_without_images_is_refused(make_camvid: MakeCamVid) -> None:
    root = make_camvid({"train": 0})
    (root / "train" / "notes.txt").write_text("no image")
    refusal(lambda: CamVid(root, "train"), root / "train", "holds no image", ".png", ".jpg")


def test_images_without_labels_are_refused_by_name(make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    for index in (1, 3):
        (root / "trainannot" / f"frame{index}.png").unlink()
    refusal(lambda: CamVid(root, "train"), "2 of 4 images", root / "trainannot" / "frame1.png")


@pytest.mark.parametrize("name", ["trainval", "", "TRAIN"])
def test_an_unknown_split_is_refused_with_the_splits(name: str, make_camvid: MakeCamVid) -> None:
    refusal(lambda: CamVid(make_camvid(), name), repr(name), "train, val, test")


def test_an_unknown_split_of_the_scenes_is_refused_with_the_splits() -> None:
    refusal(lambda: len(open_split(DataSpec("synthetic"), "trainval", (32, 64))), "'trainval'", "train, val, test")


# Frames that cannot be used: by one, and while all are taken into memory


def reads(root: Path) -> list[Callable[[], object]]:
    size = (32, 48)
    return [
        lambda: Frames(CamVid(root, "train"), size, memory_share=0).batch([2]),
        lambda: Frames(CamVid(root, "train"), size).batch([0]),
        lambda: Frames(CamVid(root, "train"), (16, 24)).hold(),
    ]


def test_a_label_of_another_size_is_refused_with_both_sizes(make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    path = root / "trainannot" / "frame2.png"
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(path)
    for read in reads(root):
        refusal(read, path, "label is 40x30", "image is 48x32")


@pytest.mark.parametrize("value", [12, 100, 254])
def test_a_label_value_that_is_no_class_is_refused_with_file_value_and_pixel(value: int, make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    path = root / "trainannot" / "frame2.png"
    label = np.zeros((32, 48), np.uint8)
    label[31, 47] = value
    Image.fromarray(label).save(path)
    for read in reads(root):
        refusal(read, path, f"value {value} at row 31, column 47", "0 to 10", "255")


def test_255_in_a_label_is_ignored_like_void(make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    Image.fromarray(np.full((32, 48), 255, np.uint8)).save(root / "trainannot" / "frame2.png")
    assert (Frames(CamVid(root, "train"), (32, 48)).batch([2]).labels == IGNORE_INDEX).all()


@pytest.mark.parametrize(("shape", "dtype"), [((32, 48), np.uint16), ((32, 48, 3), np.uint8), ((32, 48, 4), np.uint8), ((32, 48), bool)])
def test_a_label_that_is_not_8_bit_indices_is_refused(shape: tuple[int, ...], dtype: type, make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    path = root / "trainannot" / "frame2.png"
    Image.fromarray(np.zeros(shape, dtype)).save(path)
    for read in reads(root):
        refusal(read, path, "8-bit", "mode")


@pytest.mark.parametrize("folder", ["train", "trainannot"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused_by_name(folder: str, share: float, make_camvid: MakeCamVid) -> None:
    root = make_camvid()
    path = root / folder / "frame2.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for read in reads(root):
        refusal(read, path, "cannot be read as an image")


def test_a_truncated_jpeg_is_refused_by_name(make_camvid: MakeCamVid) -> None:
    root = make_camvid(suffix=".jpg")
    path = root / "train" / "frame2.jpg"
    path.write_bytes(path.read_bytes()[:700])
    for read in reads(root):
        refusal(read, path, "cannot be read as an image")
