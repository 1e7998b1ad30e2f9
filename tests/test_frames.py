"""Frames at one input size: resized, held in memory or in a mapped file, and given out in batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lpsnet.data import DATASETS, DataSpec, open_split
from lpsnet.data.camvid import CLASS_NAMES, CamVid
from lpsnet.data.frames import IGNORE_INDEX, Batch, DataError, Frames
from tests.real import CAMVID

MakeCamVid = Callable[..., Path]


def equal(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


class Made:
    """Frames of squares in two colours, with labels that say the same; counts what is decoded."""

    class_names = ("a", "b", "c")
    colours = ((0, 0, 0), (1, 1, 1), (2, 2, 2))
    categories: tuple[str, ...] = ()

    def __init__(self, count: int = 5, size: tuple[int, int] = (24, 36)) -> None:
        self.count, self.size, self.decoded = count, size, 0

    def __len__(self) -> int:
        return self.count

    def name_of(self, index: int) -> str:
        return f"made {index}"

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.decoded += 1
        rows, columns = np.mgrid[: self.size[0], : self.size[1]] // 12
        on = (rows + columns + index) % 2 == 1
        image = np.where(on[..., None], np.array((250, 30, index)), np.array((10, 30, index))).astype(np.uint8)
        label = np.where(on, 2, 0).astype(np.uint8)
        label[0, :] = IGNORE_INDEX
        return image, label


def test_a_frame_of_the_input_size_is_left_as_it_is() -> None:
    source = Made()
    batch = Frames(source, source.size).batch([3])
    image, label = source.decode(3)
    assert batch.images.dtype == batch.labels.dtype == torch.uint8
    assert np.array_equal(batch.images[0].permute(1, 2, 0), image)  # RGB stays RGB
    assert np.array_equal(batch.labels[0], label)


@pytest.mark.parametrize("size", [(16, 20), (12, 18), (53, 71), (24, 40)])
def test_resizing_mixes_colours_and_never_labels(size: tuple[int, int]) -> None:
    batch = Frames(Made(), size).batch(range(5))
    assert batch.images.shape == (5, 3, *size) and batch.labels.shape == (5, *size)
    assert set(batch.labels.unique().tolist()) <= {0, 2, IGNORE_INDEX}
    red = batch.images[:, 0]
    if size[1] % 18:  # a resize to a half or third mixes no colours of squares
        assert ((red > 20) & (red < 240)).any()
    sure = (red <= 12) | (red >= 248)  # away from the edges of the squares
    known = sure & (batch.labels != IGNORE_INDEX)
    assert known.float().mean() > 0.4
    wrong = known & ((red >= 248) != (batch.labels == 2))
    assert wrong.float().mean() < 0.02


def test_memory_and_no_memory_give_equal_batches() -> None:
    size = (20, 30)
    held, streamed = Frames(Made(), size), Frames(Made(), size, memory_share=0)
    assert held.in_memory and not streamed.in_memory
    held.hold()
    streamed.hold()
    for indices in ([0], [4, 1, 1, 3], range(5)):
        assert equal(held.batch(indices), streamed.batch(indices))
    for one, other in zip(held.batches(2), streamed.batches(2), strict=True):
        assert equal(one, other)


def test_frames_are_decoded_once_into_memory() -> None:
    kept = Made()
    seen: list[tuple[int, int]] = []
    frames = Frames(kept, kept.size)
    assert kept.decoded == 0
    frames.hold(lambda done, total: seen.append((done, total)))
    assert seen == [(number, 5) for number in range(1, 6)]
    frames.hold(lambda done, total: seen.append((done, total)))
    frames.batch([1, 1])
    assert kept.decoded == 5 and len(seen) == 5


def test_frames_that_do_not_fit_are_decoded_once_into_a_file_for_all_to_come(tmp_path: Path) -> None:
    first, second = Made(), Made()
    whole = Frames(Made(), (24, 36))
    frames = Frames(first, (24, 36), memory_share=0, cache=tmp_path / "new")
    assert equal(frames.batch([3, 1]), whole.batch([3, 1])) and first.decoded == 5
    again = Frames(second, (24, 36), memory_share=0, cache=tmp_path / "new")
    assert equal(again.batch(range(5)), whole.batch(range(5))) and second.decoded == 0
    again.batch([0]).images.zero_()
    assert equal(Frames(Made(), (24, 36), memory_share=0, cache=tmp_path / "new").batch([0]), whole.batch([0]))
    other = Frames(second, (12, 18), memory_share=0, cache=tmp_path / "new")
    other.hold()
    assert second.decoded == 5 and len(list((tmp_path / "new").glob("*.frames"))) == 2


def test_a_cache_is_made_anew_when_a_file_changes(make_camvid: MakeCamVid, tmp_path: Path) -> None:
    root = make_camvid()

    def names() -> set[str]:
        Frames(CamVid(root, "train"), (12, 18), memory_share=0, cache=tmp_path / "cache").hold()
        return {path.name for path in (tmp_path / "cache").iterdir()}

    before = names()
    assert names() == before and len(before) == 1
    image = next((root / "train").iterdir())
    image.write_bytes(image.read_bytes() + b" ")
    assert len(names()) == 2


@pytest.mark.parametrize("fault", ["file", "full"])
def test_where_no_cache_can_be_written_frames_are_decoded_each_time_and_that_is_told(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    if fault == "full":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    made = Made()
    frames = Frames(made, made.size, memory_share=0, cache=tmp_path / "file" if fault == "file" else tmp_path / "cache")
    frames.hold()
    assert made.decoded == 0 and "LPS_SEARCH_CACHE names another" in frames.note
    frames.batch([1, 1, 2])
    assert made.decoded == 3 and equal(frames.batch([0, 4]), Frames(Made(), made.size).batch([0, 4]))


def test_a_frame_that_cannot_be_decoded_leaves_no_cache_behind(tmp_path: Path) -> None:
    class Broken(Made):
        def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            if index == 3:
                raise DataError("frame 3: cut off")
            return super().decode(index)

    with pytest.raises(DataError, match="cut off"):
        Frames(Broken(), (24, 36), memory_share=0, cache=tmp_path).hold()
    assert not list(tmp_path.iterdir())


def test_changing_a_batch_changes_no_held_frame() -> None:
    frames = Frames(Made(), (24, 36))
    before = frames.batch([0, 1])
    frames.batch([0, 1]).images.zero_()
    frames.batch(range(2)).labels.zero_()
    assert equal(frames.batch([0, 1]), before)
    assert before.images.any()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 99])
def test_batches_cover_all_frames_once_in_order(size: int) -> None:
    batches = list(Frames(Made(), (24, 36)).batches(size))
    assert [len(batch.images) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert [len(batch.images) for batch in batches] == [len(batch.labels) for batch in batches]
    numbers = torch.cat([batch.images[:, 2, 0, 0] for batch in batches])  # the blue channel holds the number
    assert numbers.tolist() == [0, 1, 2, 3, 4]


def test_frames_have_the_classes_of_their_source(make_camvid: MakeCamVid) -> None:
    frames = open_split(DataSpec("camvid", str(make_camvid())), "val", (32, 48))
    assert frames.class_names == CLASS_NAMES and frames.num_classes == 11
    assert CLASS_NAMES[:4] == ("sky", "building", "pole", "road") and CLASS_NAMES[-1] == "bicyclist"


@pytest.mark.skipif(CAMVID is None, reason="CamVid is not here; put or link it at data/camvid")
def test_the_real_camvid_is_read() -> None:
    spec = DataSpec("camvid", str(CAMVID))
    size = DATASETS["camvid"].native_size
    training, validation = open_split(spec, "train", size), open_split(spec, "val", size)
    assert (len(training), len(validation)) == (367, 101)
    image, label = validation.source.decode(0)
    assert image.shape == (360, 480, 3) and label.shape == (360, 480)
    one = Frames(validation.source, size, memory_share=0).batch([0])
    assert set(one.labels.unique().tolist()) <= {*range(11), IGNORE_INDEX}
    assert image[label == 0].mean() > image[label == 3].mean()  # the sky is brighter than the road
