"""How good is it? Errors against the exact answer, and what samples alone can tell, each beside its floor.

Paired errors hold f(x_t, t) against the exact f*(x_t, t) at the same point: they see every fault, and need a mixture. All
other measures compare clouds of points, each is blind to something, and chance alone gives each a value that is not
the ideal one: read it beside its `floor`, what exact samples score.

| measure                  | sees                                       | is blind to                                |
|--------------------------|--------------------------------------------|--------------------------------------------|
| `consistency_error`      | every deviation, at every time             |                                            |
| `outlier_fraction`       | points between the modes                   | everything inside them                     |
| `occupancy_variation`    | missing and crowded modes                  | everything inside them                     |
| `mode_covariance_ratio`  | modes collapsed to a point or line         | how many points there are, and where       |
| W2, sliced W2, energy    | gross errors, in the unit of the data      | a small blur, a small shift, 1 % outliers  |
| `frechet_distance`       | the same, on features, where W2 is hopeless | all but mean and covariance               |

Samples are (n, *D) in any dtype, on any device; all is computed in float64 on the CPU.
"""

from minicm.metrics.clouds import (
    energy_distance,
    frechet_distance,
    frechet_of_moments,
    sliced_wasserstein,
    wasserstein2,
)
from minicm.metrics.consistency import (
    ConsistencyError,
    ExactConsistency,
    consistency_error,
    order,
    paired_error,
    rms,
    time_grid,
)
from minicm.metrics.floors import floor, measure_samples
from minicm.metrics.modes import (
    FAR,
    exact_outliers,
    mode_covariance_ratio,
    mode_occupancy,
    occupancy_variation,
    outlier_fraction,
)
from minicm.metrics.rows import Row

__all__ = ["ConsistencyError", "ExactConsistency", "consistency_error", "order", "paired_error", "rms", "time_grid"]
__all__ += ["energy_distance", "frechet_distance", "frechet_of_moments", "sliced_wasserstein", "wasserstein2"]
__all__ += ["exact_outliers", "mode_covariance_ratio", "mode_occupancy", "occupancy_variation", "outlier_fraction"]
__all__ += ["FAR", "Row", "floor", "measure_samples"]
