"""`lps-search validate-proxy`: does the cheap training of a search rank as a full one does?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.console import Live, parse_counts, print_table, write_rows
from search.cli.measure_verbs import AsJson

if TYPE_CHECKING:
    from search.proxy_study import ProxyStudy
    from search.training_table import TrainingTable

SETTINGS = "scratch-100,scratch-200,scratch-400,plain-400,inherit-100,inherit-200,scratch-small2-400"


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("validate-proxy")(validate_proxy)


def validate_proxy(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, whose candidates and latencies are taken.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; trainings that are there are not repeated.")] = Path("results/proxy"),
    steps: Annotated[str, typer.Option(help="Steps of the run, such as 1,2. Default: all.")] = "",
    full: Annotated[int, typer.Option(help="Iterations of a full training.", min=1)] = 3000,
    full_seeds: Annotated[int, typer.Option(help="Full trainings of each candidate.", min=1)] = 2,
    settings: Annotated[str, typer.Option(help="Cheap trainings: scratch-N, plain-N, inherit-N, scratch-small2-N, with @RUNG.")] = SETTINGS,
    seeds: Annotated[int, typer.Option(help="Cheap trainings of each candidate.", min=1)] = 2,
    choose_on: Annotated[str, typer.Option(help="Steps to choose the default on; the others judge it. Default: the first half.")] = "",
    data: Annotated[str, typer.Option(help="Where the run's data set lies now. Default: where it lay.")] = "",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    parallel: Annotated[int, typer.Option(help="Trainings at a time, in processes that share the threads.", min=1)] = 2,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all cores.", min=0)] = 0,
    report_only: Annotated[bool, typer.Option("--report-only", help="Train nothing; report what has accrued.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the candidates of a run's steps fully and cheaply, and report how each cheap training ranks them."""
    from latency.environment import available_cores
    from search.proxy_study import base_config, run_study, study_of
    from search.run import Run
    from search.runner import replay
    from search.training_table import TrainingTable

    with Run.read(run) as opened:
        decided, config = replay(opened).steps, opened.config
    study = study_of(decided, parse_counts(steps, "--steps"), full, full_seeds, settings.split(","), seeds)
    cores = threads or available_cores()
    changes = {"data": data or config.data, "precision": precision, "parallel": parallel, "threads": cores}
    if report_only:
        table = TrainingTable(out / "trainings.csv")
    else:
        with Live() as live:
            table = run_study(study, base_config(config, **changes), out, live)
    _report(study, table, parse_counts(choose_on, "--choose-on"), out, as_json)


def _report(study: ProxyStudy, table: TrainingTable, choose_on: tuple[int, ...], out: Path, as_json: bool) -> None:
    from search.figures import draw_rankings
    from search.proxy_study import default_setting, raced_rows, report_rows
    from search.run import provenance, write_json

    rows = report_rows(study, table)
    numbers = [step.number for step in study.steps]
    chooses = choose_on or tuple(numbers[: -(-len(numbers) // 2)])
    chosen = default_setting(rows, chooses)
    told: dict[str, Any] = {"chosen": chosen, "chosen_on": list(chooses), "judged_on": [n for n in numbers if n not in chooses]}
    told |= {"trainings": len(table.rows), "full_iterations": study.full.iterations, "rows": rows, **provenance()}
    races = raced_rows(study, table)
    if races:
        write_rows(out / "races.csv", races)
    if rows:
        write_rows(out / "ranking.csv", rows)
        write_json(out / "summary.json", told)
        draw_rankings(rows, out / "ranking.png")
    if as_json:
        print(json.dumps(told))
        return
    shown = ("setting", "step", "candidates", "full_seeds", "seeds", "kendall", "spearman", "regret", "regret_sd", "seconds_a_training")
    cells = [[value if isinstance(value := row[name], str | int) else f"{value:.2f}" for name in shown] for row in rows]
    print_table(f"{len(table.rows)} trainings; full ones of {study.full.iterations} iterations", list(shown), cells)
    for race in races:
        print(f"{race['setting']}, step {race['step']}: regret {race['regret']:.2f}, {race['share_of_iterations']:.0%} of the iterations")
    print(f"chosen on steps {', '.join(map(str, chooses))}: {chosen or 'none: no setting is within one seed standard deviation on all'}")
