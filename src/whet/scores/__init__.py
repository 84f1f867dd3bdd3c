"""What each part of a model is worth, and what every scheme on it will cost: the figures a plan is made from."""

from whet.scores.curvature import Curvature
from whet.scores.gains import Seen, gains
from whet.scores.outliers import SPIKE
from whet.scores.prediction import linear_losses, pivots
from whet.scores.sensitivity import LOST, TEXT, Sensitivity
from whet.scores.spectra import rank_share
from whet.scores.tables import TableUse, table_losses, tied_metric

__all__ = [
    "LOST",
    "SPIKE",
    "TEXT",
    "Curvature",
    "Seen",
    "Sensitivity",
    "TableUse",
    "gains",
    "linear_losses",
    "pivots",
    "rank_share",
    "table_losses",
    "tied_metric",
]
