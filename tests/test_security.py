"""Nothing in a file is executed, and no file of some bytes takes gigabytes or minutes: one test for each thing that was found."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import sqlite3
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import save as safetensors_bytes

from latency.layers import read_table
from latency.measurement import Conditions
from latency.store import Store, StoreError
from latency.told import parse_json
from lpsnet.architecture import NAMED
from lpsnet.checkpoint import CheckpointError, load, read_metadata
from lpsnet.data.files import MOST_PIXELS, read_image
from lpsnet.data.folder import read_description
from lpsnet.data.frames import DataError
from lpsnet.errors import UserError
from lpsnet.evaluation import Evaluation
from lpsnet.metrics import scores
from lpsnet.resume import Keeper
from search.cards import card
from search.cli import run
from search.cli.console import MOST_LETTERS, complain, print_table
from search.config import SearchConfig
from search.dashboard import looking_only
from search.files import csv_rows
from search.picks import Picked, Picks, write_picks
from search.retrain import retraining
from search.run import RunError
from search.scoring import write_scores
from search.training_folder import check_plan
from tests.test_store import measurement

DEEP = "[" * 100_000
TOLD = {"format": "lps-net-1", "architecture": "N0", "class_names": ["a"], "input_size": [8, 8], "branches": False, "deployed": True}


class Executed:
    """A value whose pickle makes a folder where it is believed."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> object:
        return os.mkdir, (str(self._mark),)


def checkpoint(path: Path, **changes: object) -> Path:
    path.write_bytes(safetensors_bytes({"x": torch.zeros(1)}, {"lps_net": json.dumps({**TOLD, **changes})}))
    return path


class TestPickles:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_none_is_executed(self, zipped: bool, tmp_path: Path) -> None:
        path, mark = tmp_path / "n.pth", tmp_path / "executed"
        torch.save({"head.weight": Executed(mark)}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="holds more than weights, which is not executed"):
            load(path, "N0")
        with pytest.raises(CheckpointError, match="no training state"):
            Keeper(path, {}).load()
        assert not mark.exists()

    def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(self, tmp_path: Path) -> None:
        torch.save({"head.weight": torch.zeros(2**18)}, tmp_path / "whole.pth")
        with zipfile.ZipFile(tmp_path / "whole.pth") as source, zipfile.ZipFile(tmp_path / "n.pth", "w", zipfile.ZIP_DEFLATED) as packed:
            for one in source.infolist():
                packed.writestr(one.filename, source.read(one))
        assert (tmp_path / "n.pth").stat().st_size < 10_000
        with pytest.raises(CheckpointError, match="is damaged or holds more"):
            load(tmp_path / "n.pth", "N0")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_long_text_is_not_searched_by_torch(self, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.save({"A" * 10_000: torch.zeros(1)}, tmp_path / "n.pth", _use_new_zipfile_serialization=zipped)
        monkeypatch.setattr("torch.load", lambda *given, **options: pytest.fail("it is read"))
        with pytest.raises(CheckpointError, match="is damaged or holds more"):
            load(tmp_path / "n.pth", "N0")

    def test_a_head_of_a_thousand_million_classes_is_refused(self, tmp_path: Path) -> None:
        torch.save({"head.weight": torch.zeros(1).expand(10**9, 32, 1, 1)}, tmp_path / "n.pth")
        assert (tmp_path / "n.pth").stat().st_size < 10_000
        with pytest.raises(CheckpointError, match=r"must be \(classes, channels, 1, 1\)"):
            load(tmp_path / "n.pth", "N0")

    @pytest.mark.parametrize("odd", [torch.zeros(1, 32, 1, 1).to_sparse(), torch.zeros(1, 32, 1, 1, dtype=torch.complex64)])
    def test_tensors_that_are_no_plain_numbers_are_refused(self, odd: torch.Tensor, tmp_path: Path) -> None:
        torch.save({"head.weight": odd}, tmp_path / "n.pth")
        with pytest.raises(CheckpointError, match="expected floats or int64"):
            load(tmp_path / "n.pth", "N0")

    def test_the_state_of_a_training_is_a_table_of_its_parts(self, tmp_path: Path) -> None:
        torch.save({"format": "lps-training-1", "identity": 5, "state": {}}, tmp_path / "state.pt")
        with pytest.raises(CheckpointError, match="move it away to start anew"):
            Keeper(tmp_path / "state.pt", {}).load()


class TestCheckpoints:
    @pytest.mark.parametrize(
        "text", ["B999999-1-1-1-1_C8-8-8-8-8_R4", "B1-1-1-1-1_C8-8-8-8-999999_R4", f"B1-1-1-1-1_C8-8-8-8-8_R{'-'.join('1' * 9000)}"]
    )
    def test_a_text_of_a_huge_network_is_not_built(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="it holds 1 numbers in 1 weights, too few"):
            load(checkpoint(tmp_path / "n.safetensors", architecture=text))

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"class_names": ["a"] * 100_000}, "1 to 255 texts"),
            ({"class_names": ["\x1b[2J"]}, "letters that can be printed"),
            ({"input_size": [10**9, 8]}, "input_size must be"),
            ({"colours": [[1, 2, 999]]}, "from 0 to 255"),
            ({"mean": [1.0]}, "mean must be 3"),
            ({"metrics": []}, "metrics must be of type dict"),
        ],
    )
    def test_a_description_is_checked_field_by_field(self, change: dict[str, object], told: str, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=told):
            read_metadata(checkpoint(tmp_path / "n.safetensors", **change))

    def test_a_description_that_is_nested_too_deeply(self, tmp_path: Path) -> None:
        (tmp_path / "n.safetensors").write_bytes(safetensors_bytes({"x": torch.zeros(1)}, {"lps_net": DEEP}))
        with pytest.raises(CheckpointError, match="is not of format"):
            load(tmp_path / "n.safetensors")


class TestImages:
    def test_postscript_is_not_given_to_a_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
        (tmp_path / "a.eps").rename(tmp_path / "a.png")
        monkeypatch.setattr("subprocess.check_call", lambda *command, **options: pytest.fail("a program was started"))
        monkeypatch.setattr("subprocess.Popen", lambda *command, **options: pytest.fail("a program was started"))
        with pytest.raises(DataError, match="it is none of PNG, JPEG"):
            read_image(tmp_path / "a.png")

    def test_a_header_of_a_huge_image_is_not_decoded(self, tmp_path: Path) -> None:
        def chunk(name: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        for side in (9_000, 60_000):  # Pillow warns of the one and refuses the other by an error of its own
            head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
            (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b""))
            assert side**2 > MOST_PIXELS
            with pytest.raises(DataError, match="cannot be read as an image"):
                read_image(tmp_path / "a.png")

    @pytest.mark.parametrize(
        "text",
        [
            "a: &a [x, x]\nb: &b [*a, *a]\nclasses: [*b, *b]\n",
            "classes: [!!python/object/apply:os.system [exit]]",
            "classes: " + "[" * 2000,
            "classes: [a]\nsize: 2026-99-99\n",
            "classes: [a]\nsize: !!int ''\n",
            "classes: [a]\n0x" + "f" * 9000 + ": 1\n",
            'classes: ["\\e[2J"]\n',
            "classes: [a]\n#" + "x" * 200_000,
        ],
    )
    def test_a_description_of_a_folder_is_plain_and_short(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "dataset.yaml").write_text(text)
        with pytest.raises(DataError):
            read_description(tmp_path)


class TestStores:
    @pytest.mark.parametrize(
        "script",
        [
            "CREATE VIEW measurements AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x AS id FROM r",
            "CREATE TABLE measurements (id INTEGER PRIMARY KEY)",
            "CREATE TABLE other (x)",
        ],
    )
    def test_a_store_is_its_table_and_no_program(self, script: str, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "s.sqlite") as connection:
            connection.executescript(script)
        connection.close()
        with pytest.raises(StoreError, match="is no latency store"):
            Store(tmp_path / "s.sqlite")

    def test_a_trigger_is_refused(self, tmp_path: Path) -> None:
        Store(tmp_path / "s.sqlite").close()
        with sqlite3.connect(tmp_path / "s.sqlite") as connection:
            connection.executescript("CREATE TRIGGER t AFTER INSERT ON measurements BEGIN DELETE FROM measurements; END")
        connection.close()
        with pytest.raises(StoreError, match="it holds trigger t"):
            Store(tmp_path / "s.sqlite")

    @pytest.mark.parametrize(
        "found", [{"state": []}, {"state": {"other_cores": "2"}}, {"state": {"slowness": "2"}}, {"parts_ms": 0.0}, {"second_ms": [1.0]}]
    )
    def test_what_a_runtime_reported_is_of_its_types(self, found: dict[str, object], tmp_path: Path) -> None:
        store = Store(tmp_path / "s.sqlite")
        store.add(dataclasses.replace(measurement(), found=found))
        with pytest.raises(StoreError, match="is corrupt in row 1"):
            store.all()
        store.close()

    def test_conditions_are_of_their_types(self) -> None:
        key = Conditions(backend="ort", device="cpu", shape=(1, 3, 8, 8), boundary="scores").key()
        assert Conditions.from_key(key).key() == key
        for wrong in ({"threads": "1"}, {"shape": [1, 3, 8]}, {"shape": [1, 3, 8, True]}, {"backend": 5}, {"cuda_graph": 1}):
            with pytest.raises(ValueError, match="must be of type"):
                Conditions.from_key(json.dumps({**json.loads(key), **wrong}))


class TestText:
    @pytest.mark.parametrize("text", [DEEP, '{"a": ' * 100_000, "9" * 400, "9" * 9000, "{", ""])
    def test_json_that_cannot_be_read_is_a_value_error(self, text: str) -> None:
        with pytest.raises(ValueError):
            parse_json(text)

    @pytest.mark.parametrize("text", ["a\n" + "x" * 200_000 + "\n", "a,b\n1\n", "a\n1,2\n"])
    def test_csv_that_is_none_is_a_value_error(self, text: str) -> None:
        with pytest.raises(ValueError):
            csv_rows(text)

    @pytest.mark.parametrize(("column", "value"), [("stride", "0"), ("groups", "7"), ("height", "9" * 30), ("latency_ms", "nan")])
    def test_a_layer_of_a_table_is_a_convolution(self, column: str, value: str, tmp_path: Path) -> None:
        row = dict.fromkeys(("channels_in", "channels_out", "height", "width", "stride", "kernel", "groups"), "1")
        text = io.StringIO()
        writer = csv.DictWriter(text, [*row, "latency_ms", "stable"])
        writer.writeheader()
        writer.writerow({**row, "latency_ms": "1.5", "stable": "True", column: value})
        (tmp_path / "t.csv").write_text(text.getvalue())
        with pytest.raises(ValueError, match="is no layer table"):
            read_table(tmp_path / "t.csv")

    def test_a_damaged_file_beside_a_training_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(DEEP)
        with pytest.raises(UserError, match="is damaged: it is nested too deeply"):
            check_plan(tmp_path, {})

    def test_a_terminal_is_told_no_commands(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        complain("bad \x1b]0;owned\x07 name", 2)
        complain("x" * 100_000, 2)
        print_table("[/x]\x1b[1m", ["a column"], [["\x1b[2J"]])
        shown = capsys.readouterr()
        assert "[/x]\\x1b[1m" in shown.out
        assert "\x1b" not in shown.err + shown.out and "\\x1b]0;owned\\x07" in shown.err and "\\x1b[2J" in shown.out
        assert len(shown.err) < MOST_LETTERS + 200
        assert run(["show", f"{tmp_path}/\x1b[2J"]) == 2 and "\x1b" not in capsys.readouterr().err


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from fractions import Fraction

    from search.video import VideoWriter, read_video

    with VideoWriter(tmp_path / "secret.mp4", Fraction(25)) as writer:
        writer.add(np.zeros((16, 16, 3), np.uint8))
    with read_video(tmp_path / "secret.mp4") as video:
        assert len(list(video)) == 1
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(UserError, match="cannot be read as a video"):
        read_video(tmp_path / "a.mp4")


def test_a_run_of_others_sends_no_training_elsewhere(tmp_path: Path) -> None:
    run_folder, network = tmp_path / "run", str(NAMED["N0"])
    config = SearchConfig(data="synthetic", height=64, width=64)
    values = {"format": 1, "study": "s", "class_names": ["a"], "config": config.to_dict()}
    run_folder.mkdir()
    (run_folder / "config.json").write_text(json.dumps(values))
    pick = Picked(step=0, architecture=network, why="step 0", boundary="scores", latency_ms=None, miou_percent=1.0)
    elsewhere = tmp_path / "elsewhere"
    write_picks(run_folder, Picks(picked={"S": pick}, trainings={network: str(elsewhere)}))
    assert retraining(run_folder, "S").out == run_folder / "trainings" / network
    elsewhere.mkdir()
    (elsewhere / "curve.csv").write_text("iteration,loss\n")
    assert retraining(run_folder, "S").out == elsewhere  # where a training is gone on with
    write_picks(run_folder, Picks(picked={"S": pick}, trainings={network: "../../x"}))
    with pytest.raises(RunError, match="is no folder of a training"):
        retraining(run_folder, "S")


def test_the_dashboard_answers_to_this_machine_only() -> None:
    said: list[str] = []

    def ask(name: str, host: str) -> bytes:
        app = looking_only(lambda environ, start: [b"page"], host)
        return b"".join(app({"REQUEST_METHOD": "GET", "HTTP_HOST": name}, lambda status, headers: said.append(status)))

    for name in ("127.0.0.1:8080", "localhost", "[::1]:80"):
        assert ask(name, "127.0.0.1") == b"page"
    assert b"reason" in ask("evil.example:8080", "127.0.0.1") and said == ["403 Forbidden"]
    assert ask("machine.example:8080", "0.0.0.0") == b"page"


def test_a_model_card_shows_names_as_they_are(tmp_path: Path) -> None:
    odd = "<img src=x> [a](http://x) |"
    path = checkpoint(tmp_path / "n.safetensors", class_names=[odd], metrics={"miou_percent": 1.0, "class_iou_percent": [2.0]}, licence=odd)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card(path.name, read_metadata(path)).split("---\n")[-1])
    kinds = {child.type for token in tokens for child in [token, *(token.children or [])]}
    assert not kinds & {"html_block", "html_inline", "link_open", "image"}
    with pytest.raises(CheckpointError, match="makes no sense"):
        card(path.name, read_metadata(checkpoint(path, metrics={"miou_percent": "1"})))


def test_a_spreadsheet_computes_no_name_of_a_class(tmp_path: Path) -> None:
    confusion = torch.tensor([[3, 1], [0, 2]])
    names = ("=1+1", "road")
    found = Evaluation(
        scores=scores(confusion),
        confusion=confusion,
        boundary_iou_percent=(1.0, None),
        category_iou_percent={},
        images=1,
        class_names=names,
    )
    write_scores(tmp_path, found, {})
    assert [row["class"] for row in csv.DictReader((tmp_path / "classes.csv").read_text().splitlines())] == ["'=1+1", "road"]
