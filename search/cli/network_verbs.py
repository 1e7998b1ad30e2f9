"""`lps-search networks`: every network that has a name, with its paper and what it costs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from search.cli.console import parse_size, print_table
from search.cli.options import AsJson, Classes


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("networks")(networks)


def networks(
    size: Annotated[str, typer.Option("--input", help="HEIGHTxWIDTH of the image the multiply-adds are for.")] = "1024x2048",
    classes: Classes = 19,
    as_json: AsJson = False,
) -> None:
    """List the networks that have a name: paper, parameters and multiply-adds in deployed form, scale of the score maps."""
    from lpsnet.errors import UserError
    from lpsnet.zoo import canonical, complexity_of, names, paper_of, score_scale

    shape, rows = parse_size(size), []
    for name in names():
        try:
            cost = complexity_of(name, classes, shape)
        except ValueError as error:
            raise UserError(str(error)) from error
        paper, arxiv = paper_of(name)
        same = {"name": name, "paper": paper, "arxiv": arxiv, "scores_scale": str(score_scale(name)), "architecture": canonical(name)}
        rows.append({**same, "parameters": cost.parameters, "macs_giga": cost.macs / 1e9})
    if as_json:
        print(json.dumps(rows))
        return
    source = {r["name"]: f"{r['paper']} ({r['arxiv']})" if r["arxiv"] else r["paper"] for r in rows}
    cells = [[r["name"], source[r["name"]], f"{r['parameters']:,}", f"{r['macs_giga']:.3f}", r["scores_scale"]] for r in rows]
    title = f"networks by name, deployed, {classes} classes, {shape[0]}x{shape[1]}; scores: extent of the score maps over the image's"
    print_table(title, ["name", "paper", "parameters", "G MACs", "scores"], cells)
    print("wherever a command takes a network, a text such as B1-3-3-10-10_C8-24-48-96-96_R6-2 will do, too")
