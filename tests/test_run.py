"""A run's folder: who may drive it, what may continue it, and what a reader is told."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latency.measurement import Environment, TimingPlan
from latency.store import StoreError
from lpsnet.architecture import NAMED, ArchitectureError
from lpsnet.errors import UserError
from lpsnet.recipe import proxy_recipe
from search.config import SearchConfig
from search.journal import StudyError
from search.run import FORMAT, Run, RunError, read_header, write_json
from search.space import Bounds
from search.study import TrainingKey, TrainingRecord

ROOT = Path(__file__).resolve().parents[1]
CONFIG = SearchConfig(data="synthetic", height=32, width=64, steps=2, proxy=proxy_recipe(10))
CLASSES = ("sky", "road")
HERE = Environment(device="Some CPU", cores=2, driver="", versions={"onnxruntime": "1.31.1", "torch": "2.13.0"})
KEY = TrainingKey(architecture=CONFIG.start, recipe=CONFIG.proxy, parent_trial="", seed=0)

DIFFERENCES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"data": "camvid:/data"}, "data", "'synthetic'", "'camvid:/data'"),
    ({"height": 64}, "height", "32", "64"),
    ({"start": "B1-1-1-1-1_C4-8-16-32-32_R8"}, "start", f"'{NAMED['N0']}'", "'B1-1-1-1-1_C4-8-16-32-32_R8'"),
    ({"backend": "torch"}, "backend", "'ort'", "'torch'"),
    ({"boundary": "labels"}, "boundary", "'scores'", "'labels'"),
    ({"threads": 2}, "threads", "1", "2"),
    ({"training_device": "cuda"}, "training_device", "'cpu'", "'cuda'"),
    ({"seed": 7}, "seed", "0", "7"),
    ({"storage": "sqlite:////tmp/x.db"}, "storage", "''", "'sqlite:////tmp/x.db'"),
    ({"plan": TimingPlan(min_s=0.5)}, "plan.min_s", "0.4", "0.5"),
    ({"proxy": proxy_recipe(400)}, "proxy.iterations", "10", "400"),
    ({"proxy": dataclasses.replace(proxy_recipe(10), flip=False)}, "proxy.flip", "True", "False"),
    ({"bounds": Bounds(max_scale=1.5)}, "bounds.max_scale", "2.0", "1.5"),
    ({"bounds": Bounds(max_width=512)}, "bounds.max_width", "1024", "512"),
]
"""What a run may not be continued with: the change, the field that is named, and both values as they are shown."""

DRIVER = """
import sys
from pathlib import Path
from latency.measurement import Environment
from lpsnet.recipe import proxy_recipe
from search.config import SearchConfig
from search.run import Run

config = SearchConfig(data="synthetic", height=32, width=64, steps=2, proxy=proxy_recipe(10))
environment = Environment(device="Some CPU", cores=2, driver="", versions={"onnxruntime": "1.31.1", "torch": "2.13.0"})
run = Run.start(Path(sys.argv[1]), config, ("sky", "road"), environment)
print("driving", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "camvid"


@pytest.fixture
def begun(path: Path) -> Path:
    """A run that was started and left."""
    start(path)
    return path


@pytest.fixture
def trained(begun: Path) -> Path:
    """A run in which a network has been trained."""
    finish(begun, TrainingRecord(miou_percent=12.5))
    return begun


@pytest.fixture
def driver(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that drives the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "driving\n"
    yield process
    process.kill()
    process.communicate()


def start(
    path: Path, config: SearchConfig = CONFIG, classes: tuple[str, ...] = CLASSES, environment: Environment = HERE, **how: Any
) -> None:
    Run.start(path, config, classes, environment, **how).close()


def finish(path: Path, record: TrainingRecord, config: SearchConfig = CONFIG) -> None:
    """Write down a training of a run."""
    with Run.start(path, config, CLASSES, HERE) as run:
        run.study.finish(run.study.begin(0, KEY, {}), KEY, record)


def content(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in ("config.json", "environment.json")}


def refusal(how: str, run: Path) -> str:
    """The message with which a run is refused when it is started again or read."""
    with pytest.raises(RunError) as refused:
        start(run) if how == "start" else Run.read(run)
    return one_line(refused)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


class TestStarting:
    def test_a_new_run_is_described_in_its_folder(self, path: Path) -> None:
        run = Run.start(path, CONFIG, CLASSES, HERE)
        assert (run.path, run.config, run.class_names, run.environment) == (path, CONFIG, CLASSES, HERE)
        config, environment = (json.loads(text) for text in content(path).values())
        assert config["format"] == FORMAT
        assert config["class_names"] == list(CLASSES)
        assert config["config"] == CONFIG.to_dict()
        assert config["study"] == run.study.name
        assert environment["latency"] == dataclasses.asdict(HERE)
        assert environment["packages"]["torch"]
        assert environment["python"] == sys.version.split()[0]
        assert (path / "latency.sqlite").is_file()
        run.close()

    def test_two_runs_never_share_the_name_of_their_studies(self, tmp_path: Path) -> None:
        names = []
        for parent in ("a", "b"):
            start(tmp_path / parent / "camvid")
            names.append(read_header(tmp_path / parent / "camvid").study)
        assert names[0].startswith("camvid-")
        assert names[0] != names[1]

    def test_equal_configuration_continues_a_run_and_changes_nothing(self, begun: Path) -> None:
        before = content(begun)
        run = Run.start(begun, dataclasses.replace(CONFIG), CLASSES, dataclasses.replace(HERE))
        stored = run.study.finish(run.study.begin(0, KEY, {}), KEY, TrainingRecord(miou_percent=12.5))
        run.close()
        assert content(begun) == before
        run = Run.start(begun, CONFIG, CLASSES, HERE)
        assert run.study.find(KEY) == stored
        run.close()

    def test_more_steps_are_taken_over_and_kept(self, begun: Path) -> None:
        study = read_header(begun).study
        run = Run.start(begun, dataclasses.replace(CONFIG, steps=9), CLASSES, HERE)
        assert run.config.steps == 9
        run.close()
        assert read_header(begun).config == dataclasses.replace(CONFIG, steps=9)
        assert read_header(begun).study == study

    def test_fewer_steps_are_refused_with_both_numbers(self, trained: Path) -> None:
        before = content(trained)
        with pytest.raises(RunError, match="was started for 2 steps, not 1"):
            start(trained, dataclasses.replace(CONFIG, steps=1))
        assert content(trained) == before

    @pytest.mark.parametrize(("change", "field", "was", "now"), DIFFERENCES, ids=[row[1] for row in DIFFERENCES])
    def test_any_other_difference_is_refused_with_both_values(
        self, trained: Path, change: dict[str, Any], field: str, was: str, now: str
    ) -> None:
        before = content(trained)
        with pytest.raises(RunError) as refused:
            start(trained, dataclasses.replace(CONFIG, steps=5, **change))
        message = one_line(refused)
        assert f"{field}: {was}, not {now}" in message
        assert str(trained) in message
        assert content(trained) == before

    def test_every_difference_is_told(self, trained: Path) -> None:
        with pytest.raises(RunError, match=r"height: 32, not 64; seed: 0, not 3"):
            start(trained, dataclasses.replace(CONFIG, height=64, seed=3))

    def test_other_classes_are_refused(self, trained: Path) -> None:
        with pytest.raises(RunError, match=re.escape("classes: ['sky', 'road'], not ['road', 'sky']")):
            start(trained, classes=("road", "sky"))

    @pytest.mark.parametrize("failed", [False, True], ids=["untouched", "failed"])
    def test_a_start_that_trained_nothing_gives_way_to_a_corrected_one(self, begun: Path, failed: bool) -> None:
        if failed:
            finish(begun, TrainingRecord(failure="the loss is nan"))
        (begun / "predictor").mkdir()  # a copy that was of the other configuration
        corrected = dataclasses.replace(CONFIG, steps=1, height=64, backend="torch")
        there = dataclasses.replace(HERE, versions={"torch": "2.13.0"})
        study = read_header(begun).study
        with Run.start(begun, corrected, ("road",), there) as run:
            assert (run.config, run.class_names, run.environment) == (corrected, ("road",), there)
            assert run.study.name != study and not run.study.has_scores()
        assert not (begun / "predictor").exists()
        with Run.read(begun) as run:
            assert (run.config, run.class_names, run.environment) == (corrected, ("road",), there)

    def test_trainings_in_a_database_count_too(self, path: Path, tmp_path: Path) -> None:
        config = dataclasses.replace(CONFIG, storage=f"sqlite:///{tmp_path}/studies.db")
        start(path, dataclasses.replace(config, seed=1))
        finish(path, TrainingRecord(miou_percent=12.5), config)
        with pytest.raises(RunError, match="seed: 0, not 3"):
            start(path, dataclasses.replace(config, seed=3))

    def test_a_run_that_was_killed_before_its_environment_was_written_can_be_continued(self, begun: Path) -> None:
        (begun / "environment.json").unlink()
        start(begun)
        assert json.loads((begun / "environment.json").read_text())["latency"] == dataclasses.asdict(HERE)


class TestEnvironment:
    OTHER = Environment(device="Some CPU", cores=2, driver="", versions={"onnxruntime": "1.32.0", "torch": "2.13.0"})

    def test_another_environment_is_refused_with_what_differs(self, begun: Path) -> None:
        before = content(begun)
        with pytest.raises(RunError, match=r"onnxruntime: '1\.31\.1', not '1\.32\.0'.*--remeasure") as refused:
            start(begun, environment=self.OTHER)
        assert "torch" not in one_line(refused)
        assert content(begun) == before

    def test_another_environment_is_taken_over_where_everything_is_measured_anew(self, begun: Path) -> None:
        start(begun, environment=self.OTHER, remeasure=True)
        start(begun, environment=self.OTHER)
        with pytest.raises(RunError, match=r"'1\.32\.0', not '1\.31\.1'"):
            start(begun, environment=HERE)

    def test_a_refused_start_does_not_change_the_number_of_steps(self, begun: Path) -> None:
        before = content(begun)
        with pytest.raises(RunError, match="another environment"):
            start(begun, dataclasses.replace(CONFIG, steps=9), environment=self.OTHER)
        assert content(begun) == before

    def test_a_refused_start_leaves_the_folder_free(self, trained: Path) -> None:
        with pytest.raises(RunError):
            start(trained, environment=self.OTHER)
        with pytest.raises(RunError):
            start(trained, classes=("other",))
        start(trained)


class TestDriving:
    def test_a_second_driver_is_refused_with_the_process_of_the_first(self, driver: subprocess.Popen[str], path: Path) -> None:
        before = content(path)
        with pytest.raises(RunError, match=rf"is being driven by process {driver.pid}\b"):
            start(path)
        with pytest.raises(RunError, match=rf"process {driver.pid}\b"):  # also when asked again
            start(path, dataclasses.replace(CONFIG, steps=9))
        assert content(path) == before

    def test_a_run_can_be_read_while_another_process_drives_it(self, driver: subprocess.Popen[str], path: Path) -> None:
        run = Run.read(path)
        assert (run.config, run.class_names, run.environment) == (CONFIG, CLASSES, HERE)
        assert run.study.find(KEY) is None
        run.close()
        assert driver.poll() is None
        with pytest.raises(RunError, match=rf"process {driver.pid}\b"):  # having been read, it is still driven
            start(path)

    def test_a_killed_driver_leaves_the_folder_free(self, driver: subprocess.Popen[str], path: Path) -> None:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        start(path)

    def test_a_second_driver_in_one_process_is_refused_until_the_first_closes(self, path: Path) -> None:
        run = Run.start(path, CONFIG, CLASSES, HERE)
        with pytest.raises(RunError, match="one driver a run"):
            Run.start(path, CONFIG, CLASSES, HERE)
        run.close()
        start(path)

    def test_weights_lie_in_the_folder_by_the_text_of_the_network(self, begun: Path) -> None:
        run = Run.read(begun)
        assert run.weights_path(NAMED["N0"]) == begun / "checkpoints" / f"{NAMED['N0']}.safetensors"
        run.close()


class TestFoldersThatCannotBeUsed:
    def test_a_file_where_the_folder_is_due_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(RunError, match=r"folder .*/file cannot be made: .*--out") as refused:
            start(tmp_path / "file")
        one_line(refused)
        assert (tmp_path / "file").read_text() == "not a folder"

    def test_a_file_in_the_path_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RunError, match=r"folder .*/file/run cannot be made: .*--out"):
            start(tmp_path / "file" / "run")

    def test_a_folder_that_cannot_be_written_is_named(self, path: Path) -> None:
        (path / "driver.lock").mkdir(parents=True)  # stands for permissions, which do not bind root
        with pytest.raises(RunError, match=r"folder .*/camvid cannot be written: .*--out"):
            start(path)

    def test_reading_an_empty_folder_says_how_to_start_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=rf"{tmp_path} holds no run.*lps-search expand --out {tmp_path}"):
            Run.read(tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_reading_no_folder_says_how_to_start_a_run(self, path: Path) -> None:
        with pytest.raises(RunError, match=r"holds no run.*lps-search expand --out"):
            Run.read(path)
        assert not path.exists()

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{",
            b"\xff\xfe\x00",
            b"[1, 2]",
            b"null",
            b'{"format": 99}',
            b'{"format": 1}',
            b'{"format": 1, "study": "x", "class_names": ["a"], "config": 5}',
            b'{"format": 1, "study": "x", "class_names": ["a"], "config": {}}',
        ],
    )
    @pytest.mark.parametrize("how", ["start", "read"])
    def test_a_corrupted_configuration_is_named(self, begun: Path, text: bytes, how: str) -> None:
        (begun / "config.json").write_bytes(text)
        assert "config.json" in refusal(how, begun)
        assert (begun / "config.json").read_bytes() == text

    @pytest.mark.parametrize(
        ("field", "value"),
        [("height", 0), ("height", "tall"), ("start", "B1"), ("plan", {"min_samples": 1}), ("proxy", {"iterations": 0}), ("unknown", 1)],
        ids=["height", "text", "start", "plan", "proxy", "unknown"],
    )
    def test_a_stored_value_out_of_its_range_is_one_line(self, begun: Path, field: str, value: object) -> None:
        values = json.loads((begun / "config.json").read_text())
        values["config"][field] = {**values["config"][field], **value} if isinstance(value, dict) else value
        (begun / "config.json").write_text(json.dumps(values))
        with pytest.raises((UserError, ArchitectureError)) as refused:
            Run.read(begun)
        one_line(refused)

    @pytest.mark.parametrize(
        "text", [b"", b"{", b"\xff\xfe\x00", b"[]", b"{}", b'{"latency": 5}', b'{"latency": {"device": "x"}}', b'{"latency": null}']
    )
    @pytest.mark.parametrize("how", ["start", "read"])
    def test_a_corrupted_environment_is_named(self, begun: Path, text: bytes, how: str) -> None:
        (begun / "environment.json").write_bytes(text)
        assert "environment.json" in refusal(how, begun)
        assert (begun / "environment.json").read_bytes() == text

    @pytest.mark.parametrize(("file", "error"), [("latency.sqlite", StoreError), ("study.journal", StudyError)])
    def test_a_damaged_record_is_named_and_leaves_the_folder_free(self, begun: Path, file: str, error: type[Exception]) -> None:
        sound = (begun / file).read_bytes()
        (begun / file).write_bytes(b"damaged\n" * 500)
        with pytest.raises(error, match=re.escape(file)):
            start(begun)
        (begun / file).write_bytes(sound)
        start(begun)

    @pytest.mark.parametrize("file", ["latency.sqlite", "study.journal"])
    def test_reading_a_run_without_a_record_names_it_and_makes_none(self, begun: Path, file: str) -> None:
        (begun / file).unlink()
        left = sorted(begun.iterdir())
        message = refusal("read", begun)
        assert f"{file} is missing" in message and str(begun) in message
        assert sorted(begun.iterdir()) == left
        start(begun)
        Run.read(begun).close()

    @pytest.mark.parametrize("file", ["latency.sqlite", "study.journal", "environment.json"])
    def test_a_run_that_has_trained_is_not_continued_without_a_part_of_its_record(self, begun: Path, file: str) -> None:
        (begun / "candidates.csv").touch()
        (begun / file).unlink()
        left = sorted(begun.iterdir())
        with pytest.raises(RunError, match=f"has lost {re.escape(file)}: put it back"):
            start(begun)
        assert sorted(begun.iterdir()) == left

    def test_a_run_whose_studies_lie_in_a_database_has_no_journal_to_miss(self, path: Path, tmp_path: Path) -> None:
        start(path, dataclasses.replace(CONFIG, storage=f"sqlite:///{tmp_path}/studies.db"))
        assert not (path / "study.journal").exists()
        Run.read(path).close()

    def test_json_is_written_whole_or_not_at_all(self, tmp_path: Path) -> None:
        write_json(tmp_path / "a.json", {"a": 1})
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {"a": object()})
        (tmp_path / "b.json").mkdir()
        with pytest.raises(RunError, match=r"cannot write .*b\.json"):
            write_json(tmp_path / "b.json", {})
        assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
