"""The data sets of files: each made in its layout, read by one contract, and every bad file named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lpsnet.data import DATASETS, DataSpec, native_size, open_split
from lpsnet.data.bdd100k import Bdd100k
from lpsnet.data.camvid import CLASS_NAMES, CLASSES, CamVid, split_of
from lpsnet.data.cityscapes import LABEL_IDS, TRAIN_IDS, Cityscapes
from lpsnet.data.folder import Folder, read_description
from lpsnet.data.frames import IGNORE_INDEX, DataError, Frames, Source
from lpsnet.data.joined import joined
from tests.real import CAMVID

RNG = np.random.default_rng(0)
SIZE = (16, 24)


def write_image(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return path


def write_mask(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def indices(high: int) -> np.ndarray:
    values = RNG.integers(0, high, SIZE, dtype=np.uint8)
    values[0, 0] = IGNORE_INDEX
    return values


def cityscapes(root: Path, *, train_ids: bool = False) -> Source:
    for number in range(3):
        stem = f"ulm_{number:06}_000019"
        write_image(root / "leftImg8bit" / "train" / "ulm" / f"{stem}_leftImg8bit.png")
        ids = RNG.choice(np.array([0, 1, 4, *LABEL_IDS], np.uint8), SIZE)
        write_mask(root / "gtFine" / "train" / "ulm" / f"{stem}_gtFine_labelIds.png", ids)
        if train_ids:
            write_mask(root / "gtFine" / "train" / "ulm" / f"{stem}_gtFine_labelTrainIds.png", TRAIN_IDS[ids])
    return Cityscapes(root, "train")


def bdd100k(root: Path, *, old: bool = False) -> Source:
    for number in range(3):
        write_image(root / "images" / ("train" if old else "10k/train") / f"{number}.jpg")
        name = root / "labels" / "train" / f"{number}_train_id.png" if old else root / "labels/sem_seg/masks/train" / f"{number}.png"
        write_mask(name, indices(19))
    return Bdd100k(root, "train")


def original_camvid(root: Path) -> Source:
    colours = [(0, 0, 0), *(colour for row in CLASSES.values() for colour in row)]
    for number in range(3):
        stem = f"0016E5_{number:05}"
        write_image(root / "701_StillsRaw_full" / f"{stem}.png")
        picked = np.array(colours, np.uint8)[RNG.integers(0, len(colours), SIZE)]
        write_mask(root / "LabeledApproved_full" / f"{stem}_L.png", picked)
    return CamVid(root, "train")


def folder(root: Path, text: str = "classes: [floor, pallet, {name: person, colour: [1, 2, 3]}]\n") -> Source:
    for number in range(3):
        write_image(root / "images" / "train" / f"{number}.png")
        write_mask(root / "masks" / "train" / f"{number}.png", indices(3))
    (root / "dataset.yaml").write_text(text)
    return Folder(root, "train")


MAKERS: dict[str, Callable[[Path], Source]] = {
    "cityscapes": cityscapes,
    "cityscapes with train ids": lambda root: cityscapes(root, train_ids=True),
    "bdd100k": bdd100k,
    "bdd100k, older": lambda root: bdd100k(root, old=True),
    "camvid, original": original_camvid,
    "folder": folder,
}


@pytest.mark.parametrize("name", MAKERS)
class TestContract:
    def test_frames_are_decoded_and_described(self, name: str, tmp_path: Path) -> None:
        source = MAKERS[name](tmp_path)
        assert len(source) == 3
        assert len(source.class_names) == len(source.colours) == len(set(source.class_names))
        assert len(source.categories) in (0, len(source.class_names))
        for index in range(3):
            image, label = source.decode(index)
            assert image.shape == (*SIZE, 3) and label.shape == SIZE and image.dtype == label.dtype == np.uint8
            assert {*np.unique(label)} <= {*range(len(source.class_names)), IGNORE_INDEX}
            assert all(path.is_file() for path in source.files(index))  # type: ignore[attr-defined]
        batch = Frames(source, SIZE).batch([0, 2])
        assert batch.images.shape == (2, 3, *SIZE) and len(np.unique(batch.labels)) > 2

    def test_a_missing_label_a_cut_image_and_an_unknown_split_are_named(self, name: str, tmp_path: Path) -> None:
        source = MAKERS[name](tmp_path)
        image, label = source.files(1)  # type: ignore[attr-defined]
        image.write_bytes(image.read_bytes()[:60])
        with pytest.raises(DataError, match=f"{image}: cannot be read as an image"):
            source.decode(1)
        label.unlink()
        for other in label.parent.glob(f"{label.name.split('_label')[0]}*"):
            other.unlink()  # Cityscapes would fall back to the other kind of label
        with pytest.raises(DataError, match=r"1 of 3 images .* have no label"):
            type(source)(tmp_path, "train")  # type: ignore[call-arg]
        with pytest.raises(DataError):
            type(source)(tmp_path, "dev")  # type: ignore[call-arg]

    def test_a_mask_of_colours_or_16_bits_or_another_size_is_refused(self, name: str, tmp_path: Path) -> None:
        source = MAKERS[name](tmp_path)
        label = source.files(0)[1]  # type: ignore[attr-defined]
        if name != "camvid, original":
            write_mask(label, np.zeros((*SIZE, 3), np.uint8))
            with pytest.raises(DataError, match=r"must be an 8-bit image of class indices, found mode 'RGB' \(colours\)"):
                source.decode(0)
            write_mask(label, np.zeros(SIZE, np.uint16))
            with pytest.raises(DataError, match=r"found mode 'I;16' \(16 or more bits\)"):
                source.decode(0)
        write_mask(label, np.zeros((8, 8, 3) if name == "camvid, original" else (8, 8), np.uint8))
        with pytest.raises(DataError, match=r"the label is 8x8 but the image is 24x16"):
            Frames(source, SIZE).batch([0])


def test_label_ids_become_the_train_ids_that_the_scripts_would_have_made(tmp_path: Path) -> None:
    converted = [cityscapes(tmp_path / "a").decode(index)[1] for index in range(3)]
    global RNG
    RNG = np.random.default_rng(0)
    one = cityscapes(tmp_path / "b")
    RNG = np.random.default_rng(0)
    two = cityscapes(tmp_path / "c", train_ids=True)
    assert converted[0].max() == IGNORE_INDEX
    for index in range(3):
        ids = np.asarray(Image.open(one.files(index)[1]))  # type: ignore[attr-defined]
        for own, label_id in enumerate(LABEL_IDS):
            assert ((one.decode(index)[1] == own) == (ids == label_id)).all()
    assert str(two.files(0)[1]).endswith("labelTrainIds.png")  # type: ignore[attr-defined]


def test_coarse_labels_join_the_training_split_only(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    write_image(tmp_path / "leftImg8bit" / "train_extra" / "bonn" / "bonn_1_leftImg8bit.png")
    write_mask(tmp_path / "gtCoarse" / "train_extra" / "bonn" / "bonn_1_gtCoarse_labelIds.png", indices(30))
    write_image(tmp_path / "leftImg8bit" / "val" / "ulm" / "v_leftImg8bit.png")
    write_mask(tmp_path / "gtFine" / "val" / "ulm" / "v_gtFine_labelIds.png", indices(30))
    spec = DataSpec.parse(f"cityscapes-coarse:{tmp_path}")
    assert len(open_split(spec, "train", SIZE)) == 4 and len(open_split(spec, "val", SIZE)) == 1
    assert len(open_split(DataSpec.parse(f"cityscapes:{tmp_path}"), "train", SIZE)) == 3


def test_the_32_colours_fold_to_the_11_classes(tmp_path: Path) -> None:
    assert sum(map(len, CLASSES.values())) == 31  # and void
    source = original_camvid(tmp_path)
    label = source.files(0)[1]  # type: ignore[attr-defined]
    coloured = np.zeros((*SIZE, 3), np.uint8)
    coloured[0, :5] = [(192, 0, 64), (64, 0, 64), (192, 192, 0), (0, 64, 64), (64, 128, 64)]
    write_mask(label, coloured)
    found = source.decode(0)[1]
    assert [CLASS_NAMES[value] for value in found[0, :5]] == ["road", "building", "tree", "sign", "pedestrian"]
    assert (found[1:] == IGNORE_INDEX).all()
    coloured[3, 7] = (1, 2, 3)
    write_mask(label, coloured)
    with pytest.raises(DataError, match=r"colour \(1, 2, 3\) at row 3, column 7 is that of no class"):
        source.decode(0)


@pytest.mark.skipif(CAMVID is None, reason="no real frames here")
def test_the_originals_frames_are_split_as_segnet_split_them() -> None:
    assert CAMVID is not None
    for split in ("train", "val"):
        assert {split_of(path.stem) for path in (CAMVID / split).iterdir()} == {split}
    assert split_of("Seq05VD_f02610") == split_of("0001TP_008550") == "test"


BAD_DESCRIPTIONS: list[tuple[str, str]] = [
    ("classes: {a: 1}", "must hold a list named classes"),
    ("classes: []", "1 to 255 classes, got 0"),
    ("classes: [1]", "class 0 has no name: 1"),
    ("classes: [a, a]", "two classes have one name: 'a'"),
    ("classes: [a]\nclases: 3", "holds clases; there are: classes, ignore"),
    ("classes: [{name: a, colour: [1, 2]}]", "the colour of 'a' must be three numbers"),
    ("classes: [{name: a, colour: [1, 2, 256]}]", "from 0 to 255"),
    ("classes: [a, b]\nignore: 1", "ignore must lie beyond the classes' indices, 2 to 255, got 1"),
    ("classes: [a]\nsize: 720", r"size must be \[height, width\] in pixels, got 720"),
    ("classes: [a]\nimages: ../x/{split}", "must be a folder below this one"),
    ("classes: [a]\nimages: /{split}", "must be a folder below this one"),
    ("classes: [a]\nmasks: masks", "with {split} in its name"),
    ("classes: [a]\nmasks: '{split}/{0}'", "no braces but {split}"),
    ("classes: [a", "is no YAML"),
    ("classes: !!python/object/apply:os.system ['touch hacked']", "is no YAML"),
]


@pytest.mark.parametrize(("text", "message"), BAD_DESCRIPTIONS)
def test_a_wrong_description_is_refused_with_what_would_be_right(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        folder(tmp_path, text)
    assert not (tmp_path / "hacked").exists()


def test_a_description_is_read_with_its_defaults(tmp_path: Path) -> None:
    source = folder(
        tmp_path, "classes: [floor, {name: pallet, category: things, colour: [9, 8, 7]}, person]\nignore: [200, 254]\nsize: [8, 12]\n"
    )
    assert (
        source.class_names == ("floor", "pallet", "person") and source.colours[1] == (9, 8, 7) and source.categories == ("", "things", "")
    )
    assert native_size(DataSpec.parse(f"folder:{tmp_path}")) == (8, 12)
    mask = source.files(0)[1]  # type: ignore[attr-defined]
    write_mask(mask, np.full(SIZE, 200, np.uint8))
    assert (source.decode(0)[1] == IGNORE_INDEX).all()
    read_description.cache_clear()
    folder(tmp_path, "classes: [a, b, c]")
    assert native_size(DataSpec.parse(f"folder:{tmp_path}")) == SIZE  # of the first image
    assert len(set(read_description(tmp_path).colours)) == 3


def test_a_folder_without_description_says_what_it_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset.yaml cannot be read .*names the classes"):
        Folder(tmp_path, "train")


def test_a_value_beyond_the_classes_is_named_with_its_pixel(tmp_path: Path) -> None:
    source = folder(tmp_path)
    values = np.zeros(SIZE, np.uint8)
    values[2, 5] = 3
    write_mask(source.files(1)[1], values)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="label value 3 at row 2, column 5 is no class; expected 0 to 2"):
        Frames(source, SIZE).batch([1])


def test_splits_are_joined_one_after_another(make_camvid: Callable[..., Path]) -> None:
    root = make_camvid({"train": 3, "val": 2})
    splits = [Frames(CamVid(root, split), SIZE) for split in ("train", "val")]
    both = joined(splits)
    assert len(both) == 5 and joined(splits[:1]) is splits[0]
    for index in range(5):
        expected = splits[0].batch([index]) if index < 3 else splits[1].batch([index - 3])
        assert (both.batch([index]).images == expected.images).all() and (both.batch([index]).labels == expected.labels).all()
    assert "val" in both.source.name_of(4) and len(both.source.files(0)) == 2  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        both.source.decode(5)


def test_every_data_set_names_the_licence_of_its_frames() -> None:
    assert all(row.licence for row in DATASETS.values())
