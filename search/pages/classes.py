"""IoU of every class along the chain."""

from __future__ import annotations

from search.pages.content import Cell, Column, Item, Plot, Section, Table
from search.pages.facts import RunFacts
from search.pages.plots import by_step, escaped, linear


def classes_section(facts: RunFacts) -> Section:
    """IoU a class, for every network of the chain."""
    if not any(record.class_iou_percent for _, record in facts.members):
        return Section(key="classes", title="IoU of each class", text=("The study holds no IoU of single classes.",))
    items: tuple[Item, ...] = (heat_map(facts), classes_table(facts))
    return Section(key="classes", title="IoU of each class", items=items)


def _grid(facts: RunFacts) -> list[list[float | None]]:
    """A row a class, a column a step; None where a class never occurs."""
    names = facts.run.class_names
    columns = [list(record.class_iou_percent) + [None] * len(names) for _, record in facts.members]
    return [[column[index] for column in columns] for index in range(len(names))]


def heat_map(facts: RunFacts) -> Plot:
    """IoU as a colour, classes from top to bottom, steps from left to right."""
    names, grid = facts.run.class_names, _grid(facts)
    steps = [step.number for step, _ in facts.members]
    told = [
        [f"{name}, step {number}: {'-' if value is None else f'{value:.1f} %'}" for number, value in zip(steps, row, strict=True)]
        for name, row in zip(names, grid, strict=True)
    ]
    trace = {
        "type": "heatmap",
        "x": steps,
        "y": list(range(len(names))),
        "z": grid,
        "zmin": 0,
        "zmax": 100,
        "colorscale": "Cividis",
        "xgap": 1,
        "ygap": 1,
        "hoverinfo": "text",
        "hovertext": [[escaped(text) for text in row] for row in told],
        "customdata": told,
        "colorbar": {
            "orientation": "h",
            "thickness": 10,
            "len": 0.9,
            "x": 0.5,
            "y": 1.02,
            "yanchor": "bottom",
            "ypad": 0,
            "ticksuffix": " %",
        },
    }
    last = [row[-1] for row in grid]
    scored = [(value, name) for value, name in zip(last, names, strict=True) if value is not None]
    best, worst = (max(scored)[1], min(scored)[1]) if scored else ("none", "none")
    axis = linear("", tickmode="array", tickvals=list(range(len(names))), ticktext=[escaped(_short(name)) for name in names])
    return Plot(
        key="class-map",
        title="IoU of each class along the chain",
        description=f"At the last step {best} scores best and {worst} worst of {len(names)} classes.",
        traces=(trace,),
        layout={
            "xaxis": by_step(steps),
            "yaxis": {**axis, "autorange": "reversed", "showgrid": False},
        },
        table="classes",
        height=130 + 24 * len(names),
    )


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def classes_table(facts: RunFacts) -> Table:
    """A row a class and a column a step; the mean at the end."""
    names = facts.run.class_names
    rows: list[tuple[Cell, ...]] = [(name, *values) for name, values in zip(names, _grid(facts), strict=True)]
    mean: tuple[Cell, ...] = ("mean", *(step.chosen.miou_percent for step, _ in facts.members))
    columns = (Column(name="class"), *(Column(name=f"step {step.number}", form=".1f") for step, _ in facts.members))
    return Table(
        key="classes",
        title="IoU of each class in percent",
        columns=columns,
        rows=(*rows, mean),
        totals=1,
        note="On the validation split. A class that neither occurs nor is predicted has no IoU and is left out of the mean.",
    )
