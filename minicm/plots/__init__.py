"""Every figure of the demo and the notebooks, each a function that returns a matplotlib Figure; truth beside the learned.

Figures are drawn on the CPU: give them models that live there, and a CPU generator. Nothing is shown or saved:
`figure.savefig("name.png")`, or in a notebook, after `%matplotlib inline`, the figure as the last line of a cell.
"""

from minicm.plots.comparison import comparison, curves, pairs
from minicm.plots.errors import boundary, convergence, error_against_time
from minicm.plots.moving import Gif, animation
from minicm.plots.samples import noise_map, samples
from minicm.plots.training import curricula, losses, roles
from minicm.plots.trajectories import trajectories

__all__ = ["Gif", "animation", "boundary", "comparison", "convergence", "curricula", "curves", "error_against_time"]
__all__ += ["losses", "noise_map", "pairs", "roles", "samples", "trajectories"]
