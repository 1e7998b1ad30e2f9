"""The comparison networks of the papers, by name: `BASELINES["skipnet-mobilenet"](num_classes)`."""

from lpsnet.baselines.seam import Baseline
from lpsnet.baselines.table import BASELINES, Row, baseline

__all__ = ["BASELINES", "Baseline", "Row", "baseline"]
