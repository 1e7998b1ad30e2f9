"""The comparison networks of the papers, by name: `BASELINES["skipnet-mobilenet"](num_classes)`."""

from lpsnet.baselines.seam import Baseline, Chain, Encoder, Link
from lpsnet.baselines.table import BASELINES, Make, Paper, Row, baseline

__all__ = ["BASELINES", "Baseline", "Chain", "Encoder", "Link", "Make", "Paper", "Row", "baseline"]
