"""What is fuzzed, and with which valid inputs: texts, runs and their side files, stores, tables; `fuzz_files.py` adds the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
import shutil
import sqlite3
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lpsnet.architecture import NAMED, Architecture
from lpsnet.recipe import changed, named_recipe
from lpsnet.zoo import canonical
from tests.fuzz import Attempt, Target
from tests.fuzz_files import FILES
from tests.fuzz_mutations import NUMBERS, WORDS, as_json, json_like, mutate_bytes, mutate_text, mutate_value

ROOT = Path(__file__).resolve().parents[1]


def architectures(folder: Path) -> Attempt:
    texts = [*map(str, NAMED.values()), *NAMED, "light", "B1-1-1-1-1_C4-8-16-32-32_R4_ghost_attention-a", "B1-2-3-4-5_C9-9-9-9-9_R16-8-1"]

    def attempt(rng: random.Random) -> None:
        text = canonical(mutate_text(rng, rng.choice(texts)))
        assert canonical(text) == text
        if text[0] == "B" and "_" in text:
            assert str(Architecture.parse(text)) == text

    return attempt


def recipe_options(folder: Path) -> Attempt:
    recipe = named_recipe("camvid")
    pairs = [f"{name}={value}" for name, value in dataclasses.asdict(recipe).items()]

    def attempt(rng: random.Random) -> None:
        name, _, value = rng.choice(pairs).partition("=")
        drawn = rng.choice(
            (f"{name}={rng.choice((*WORDS, *NUMBERS))}", f"{name}={mutate_text(rng, value)}", mutate_text(rng, f"{name}={value}"))
        )
        changed(recipe, [drawn]).to_dict()

    return attempt


def _made_run(folder: Path) -> Path:
    return Path(shutil.copytree(Path(_first_run().name) / "run", folder / "run"))


@cache
def _first_run() -> TemporaryDirectory[str]:
    """A run of one step, made once in a process."""
    from tests.long_run import make_long_run

    held = TemporaryDirectory()
    make_long_run(Path(held.name) / "run", 1, classes=("road", "car", "sky"))
    return held


def run_headers(folder: Path) -> Attempt:
    from search.run import read_header

    path = folder / "config.json"
    values = json.loads((_made_run(folder) / "config.json").read_text())

    def attempt(rng: random.Random) -> None:
        path.write_bytes(json_like(rng, values))
        header = read_header(folder)
        json.dumps(header.config.to_dict())

    return attempt


def picks(folder: Path) -> Attempt:
    from search.picks import Picked, Picks, read_picks, training_folder, write_picks

    pick = Picked(step=1, architecture="N0", why="step 1", boundary="scores", latency_ms=1.5, miou_percent=50.0)
    write_picks(folder, Picks(picked={"S": pick}, trainings={"N0": "trainings/a"}))
    path, network = folder / "picks.json", str(NAMED["N0"])
    values = json.loads(path.read_text())

    def attempt(rng: random.Random) -> None:
        path.write_bytes(json_like(rng, values))
        for name, one in read_picks(folder).picked.items():
            f"{name} {one.latency_ms or 0:.3f} {one.miou_percent:.2f}"
        training_folder(folder, network)

    return attempt


def stores(folder: Path) -> Attempt:
    from latency.compare import comparison
    from latency.store import Store
    from tests.test_store import measurement

    path, fresh = folder / "latency.sqlite", folder / "fresh.sqlite"
    store = Store(fresh)
    found = {"state": {"other_cores": 0.1, "slowness": 1.1}, "parts_ms": {"enqueue": 0.1}, "second_ms": [1.0] * 9}
    store.add(dataclasses.replace(measurement(), found=found))
    store.add_failure("other", measurement().conditions, measurement().environment, "", "no reason")
    store.close()
    data = fresh.read_bytes()
    with contextlib.closing(sqlite3.connect(fresh)) as connection:
        row = dict(
            zip(
                ("conditions", "environment", "detail"),
                connection.execute("SELECT conditions, environment, detail FROM measurements").fetchone(),
                strict=True,
            )
        )

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.4:
            path.write_bytes(mutate_bytes(rng, data))
        else:
            path.write_bytes(data)
            _damage(rng, path, row)
        store = Store(path)
        try:
            store.last_row()
            for found in store.all():
                found.summary()
                if "second_ms" in found.found:
                    comparison(found)
            store.find("other", measurement().conditions, measurement().environment)
        finally:
            store.close()

    return attempt


_ODD_SCHEMAS = (
    "DROP TABLE measurements; "
    "CREATE VIEW measurements AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x AS id FROM r",
    "CREATE TRIGGER t AFTER INSERT ON measurements BEGIN DELETE FROM measurements; END",
    "ALTER TABLE measurements ADD COLUMN more TEXT",
    "ALTER TABLE measurements RENAME COLUMN detail TO other",
    "CREATE TABLE other (x)",
)


def _damage(rng: random.Random, path: Path, row: dict[str, str]) -> None:
    """Change what a store says, or what it is made of."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = OFF")
        if rng.random() < 0.1:
            connection.executescript(rng.choice(_ODD_SCHEMAS))
            return
        column = rng.choice(("subject", "conditions", "environment", "created", "failure", "detail", *row))
        if column in row:
            value: Any = json_like(rng, json.loads(row[column]))
            value = rng.choice((value, value.decode(errors="replace")))
        else:
            value = rng.choice((1, 1.5, b"\xff", *(word.encode(errors="replace").decode() for word in WORDS)))
        connection.execute(f"UPDATE measurements SET {column} = ? WHERE id = ?", (value, rng.choice((1, 2))))


def journals(folder: Path) -> Attempt:
    from search.run import read_header
    from search.study import TrainingStudy

    run, path = _made_run(folder), folder / "study.journal"
    name, lines = read_header(run).study, (run / "study.journal").read_bytes().splitlines()[:60]

    def attempt(rng: random.Random) -> None:
        kept = list(lines)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(kept))
            kept[at : at + 1] = rng.choice(
                ([json_like(rng, json.loads(lines[at % len(lines)]))], [], [kept[at]] * 2, [kept[rng.randrange(len(kept))]])
            )
        path.write_bytes(b"\n".join(kept) + rng.choice((b"\n", b"")))
        study = TrainingStudy(name, str(path), heal=rng.random() < 0.5)
        study.has_scores()
        for step in (0, 1):
            study.trials(step)

    return attempt


def runs(folder: Path) -> Attempt:
    """Whole runs, one of whose files is changed, as `show`, `watch` and `report` read them."""
    from datetime import UTC, datetime

    from rich.console import Console

    from search.cli.watch_frame import frame
    from search.observer import Observer
    from search.pages.build import ReportPlan, build_report
    from search.pages.facts import read_facts
    from search.pages.markdown import markdown
    from search.pages.pictures import PicturePlan
    from search.run import Run
    from search.watch import Watch

    run = _made_run(folder)
    shutil.rmtree(run / "checkpoints")
    kept = {name: (run / name).read_bytes() for name in ("config.json", "environment.json", "study.journal", "latency.sqlite")}
    console, plan = (
        Console(file=io.StringIO(), width=120),
        ReportPlan(out=folder, pictures=PicturePlan(frames=0, folder=folder)),
    )
    rows = _rows_of(run / "latency.sqlite")

    def attempt(rng: random.Random) -> None:
        name = rng.choice(list(kept))
        for other, data in kept.items():
            (run / other).write_bytes(data)
        if name.endswith(".json"):
            (run / name).write_bytes(json_like(rng, json.loads(kept[name])))
        elif name == "study.journal":
            lines = kept[name].splitlines(keepends=True)
            at = rng.randrange(len(lines))
            lines[at] = as_json(mutate_value(rng, json.loads(lines[at]))) + b"\n"
            (run / name).write_bytes(b"".join(lines))
        else:
            _damage(rng, run / name, rng.choice(rows))
        with Run.read(run) as opened:
            markdown(build_report(read_facts(opened), plan, Observer()), "")
        watch = Watch(run)
        try:
            console.print(frame(watch.look(), datetime.now(UTC)))
        finally:
            watch.close()
            console.file.seek(0)

    return attempt


def _rows_of(path: Path) -> list[dict[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT conditions, environment, detail FROM measurements LIMIT 2").fetchall()
    return [dict(zip(("conditions", "environment", "detail"), row, strict=True)) for row in found]


def predictors(folder: Path) -> Attempt:
    from search.forecast import input_size, layers_of_architecture, load_predictor

    source = ROOT / "results" / "latency" / "xeon-2-cores"
    values, table = json.loads((source / "predictor.json").read_text()), (source / "predictor_layers.csv").read_text()
    layers = layers_of_architecture(NAMED["N0"], 19, (64, 128))
    lines = table.splitlines()

    def attempt(rng: random.Random) -> None:
        import hashlib

        text = table
        if rng.random() < 0.5:
            kept = list(lines)
            at = rng.randrange(len(kept))
            kept[at : at + 1] = rng.choice(([mutate_text(rng, kept[at])], [kept[at]] * rng.choice((2, 6000)), kept[: rng.randrange(9)]))
            text = "\n".join(kept)
        (folder / "predictor_layers.csv").write_text(text, errors="replace")
        right = {**values, "table_sha256": hashlib.sha256((folder / "predictor_layers.csv").read_bytes()).hexdigest()}
        (folder / "predictor.json").write_bytes(as_json(right) if text != table else json_like(rng, right))
        load_predictor(folder).predict(layers)
        input_size(folder)

    return attempt


def tables(folder: Path) -> Attempt:
    from search.data_study import read_rows
    from search.training_folder import read_curve
    from search.training_table import TrainingTable

    path = folder / "table.csv"
    kinds = [
        (
            read_curve,
            "iteration,loss,learning_rate,images_per_s,waiting_percent,val_miou_percent\n10,1.5,0.1,5,0.1,\n20,1.25,0.1,5,0.1,40\n",
        ),
        (
            TrainingTable,
            "architecture,setting,seed,parent,miou_percent,seconds,failure\nN0,scratch-400,0,,50.1,3.5,\nN0,scratch-400,1,,,3.5,lost\n",
        ),
        (read_rows, "dimension,architecture,seed,iterations,miou_percent,seconds\ncontrol,N0,0,80,50.5,3\ndepth,N0,0,80,51.5,3\n"),
    ]

    def attempt(rng: random.Random) -> None:
        read, text = rng.choice(kinds)
        path.write_bytes(mutate_text(rng, text).encode(errors="surrogatepass") if rng.random() < 0.7 else mutate_bytes(rng, text.encode()))
        read(path)

    return attempt


def beside_a_run(folder: Path) -> Attempt:
    """Folders of `compare`, `bench-table`, `rival` and `noise-floor` as a report reads them."""
    from search.pages.facts import read_facts
    from search.pages.latencies import noise_facts
    from search.pages.others import read_others
    from search.run import Run
    from tests.long_run import HERE

    facts, beside = read_facts(Run.read(_made_run(folder))), folder / "beside"
    row = {
        "input": "32x64",
        "network": "unet",
        "latency_scores_ms": 5.5,
        "miou_percent": 60.0,
        "data": "synthetic",
        "parameters": 5,
        "failure": "",
    }
    at = {"backend": "ort", "device": "cpu", "shape": [1, 3, 32, 64], "precision": "fp32", "threads": 1}
    floor = {"architecture": "N0", "size": [32, 64], "boundary": "scores", "backend": "ort", "device": "x", "floor": 0.05}
    files: dict[str, Any] = {
        "compare.json": {"conditions": at, "environment": dataclasses.asdict(HERE), "rows": [row]},
        "noise_floor.json": floor,
        "summary.csv": "sampler,seeds,hypervolume,low,high\nrandom,3,0.5,0.4,0.6\n",
        "curves.csv": "sampler,spent_s,hypervolume\nrandom,1,0.1\nrandom,2,0.5\n",
        "live_random_0.csv": "sampler,architecture,latency_ms,miou_percent\nrandom,N0,1.5,40\n",
        "live_random_0.json": {"config": {"height": 32, "width": 64, **at, "data": "synthetic", "boundary": "scores"}, "environment": None},
    }
    beside.mkdir()

    def attempt(rng: random.Random) -> None:
        wrong = rng.choice(list(files))
        for name, value in files.items():
            data = value.encode() if isinstance(value, str) else as_json(value)
            if name == wrong:
                data = mutate_text(rng, value).encode(errors="surrogatepass") if isinstance(value, str) else json_like(rng, value)
            (beside / name).write_bytes(data)
        noise_facts(facts, read_others(facts, [beside]).noise)

    return attempt


def ablations(folder: Path) -> Attempt:
    from search.ablation_report import rows_of
    from search.ablation_run import read_ablation
    from tests.long_run import HERE
    from tests.test_store import CONDITIONS

    plan = {
        "table": "blocks",
        "data": "synthetic",
        "classes": 3,
        "width": 8,
        "target_ms": None,
        "fit": False,
        "kinds": ["conv3x3", "ghost"],
        "seeds": 2,
        "conditions": json.loads(CONDITIONS.key()),
        "recipe": named_recipe("camvid").to_dict(),
        "precision": "fp32",
        "training_device": "cpu",
    }
    study = {"plan": plan, "environment": dataclasses.asdict(HERE)}
    line = as_json({"key": {"what": "latency", "network": "N0"}, "fact": {"latency_ms": 1.5, "stable": True}})

    def attempt(rng: random.Random) -> None:
        (folder / "study.json").write_bytes(json_like(rng, study))
        (folder / "record.jsonl").write_bytes(line + b"\n")
        rows_of(read_ablation("blocks", folder))

    return attempt


_HERE = (
    Target("architecture", 470_000, architectures, "architecture text"),
    Target("recipe", 140_000, recipe_options, "--set NAME=VALUE"),
    Target("config", 100_000, run_headers, "config.json of a run"),
    Target("picks", 50_000, picks, "picks.json of a run"),
    Target("store", 20_000, stores, "latency store (SQLite)"),
    Target("journal", 20_000, journals, "study journal"),
    Target("run", 1_200, runs, "whole runs: show, watch, report"),
    Target("predictor", 600, predictors, "predictor.json and its layer table"),
    Target("table", 70_000, tables, "CSV: curves, trainings, studies"),
    Target("beside", 10_000, beside_a_run, "compare, rival and noise-floor files beside a report"),
    Target("ablation", 5_000, ablations, "study.json of ablate"),
)

TARGETS = {target.name: target for target in (*_HERE, *FILES)}
