"""What each part of a model is worth, and what every scheme on it will cost: the figures a plan is made from."""

from whet.scores.outliers import SPIKE
from whet.scores.prediction import TableUse, gains, linear_losses, paid_loss, pivots, table_losses, tied_metric
from whet.scores.sensitivity import LOST, TEXT, PartScore, Sensitivity
from whet.scores.spectra import rank_share

__all__ = [
    "LOST",
    "SPIKE",
    "TEXT",
    "PartScore",
    "Sensitivity",
    "TableUse",
    "gains",
    "linear_losses",
    "paid_loss",
    "pivots",
    "rank_share",
    "table_losses",
    "tied_metric",
]
