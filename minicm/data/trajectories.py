"""The upper bound: plain regression on the exact f*, which tells what the network can hold from what an algorithm reaches.

Denoising score matching regresses x0 from x0 + sigma eps with eps drawn anew: its answer is the posterior mean. Here eps
is the one that leads from x0 to the point of x0's own trajectory at t: the same squared loss has the answer f*. It needs
exact trajectories, so it is a yardstick of the mixtures and no method. Its weight is 1, at times as CD's.
"""

import torch
from torch import Tensor

from minicm.data.mixtures import GaussianMixture
from minicm.distances import l2
from minicm.objectives.base import Draw, Objective, dropout_from, dropout_seeds
from minicm.schedules import EDM, Denoise, Schedule
from minicm.times import T_MIN, LogNormalTimes, TimeLaw


class Trajectories:
    """Data of which the whole way is known: exact trajectories, each at some times of its own.

    CM, arXiv:2303.01469, section 3: f* is constant along each. `points` (m, n, d) and `times` (m, n), descending in m, float64;
    `ends` (n, d) at t_min. Starts from the prior at t_max, so points at t are distributed as x_t.
    """

    def __init__(
        self,
        mixture: GaussianMixture,
        *,
        schedule: Schedule = EDM(),
        t_min: float = T_MIN,  # where f* ends
        law: TimeLaw = LogNormalTimes(mean=-0.5, std=2.0, low=T_MIN),  # of the times, in the clock
        n: int = 8192,  # trajectories
        m: int = 32,  # times of each
        seed: int = 0,  # of starts and times
    ) -> None:
        self.schedule, generator = schedule, torch.Generator().manual_seed(seed)
        x = schedule.prior((n, mixture.dim), generator, dtype=torch.float64)
        self.times = law(n * m, generator).reshape(m, n).sort(0, descending=True).values
        now, points = torch.full((n,), schedule.t_max, dtype=torch.float64), []
        for then in self.times:
            x = mixture.flow(x, now, then, schedule)
            points.append(x)
            now = then
        self.points = torch.stack(points)
        self.ends = mixture.flow(x, now, t_min, schedule)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ends of n trajectories (n, d) in torch's default dtype, and which they are: (n,) int64."""
        i = torch.randint(len(self.ends), (n,), generator=generator)
        return self.ends[i].to(torch.get_default_dtype()), i


class Regression(Objective):
    """Regression on f*: |f(x_t, t) - x0|^2 where x_t lies on the trajectory that ends in x0.

    The fixed point is CM's f* (arXiv:2303.01469, section 3). Its data are the `trajectories`, whose numbers come as
    labels. Losses (B,); f_target is not used. Raises ValueError for labels that number no trajectory.
    """

    def __init__(self, trajectories: Trajectories) -> None:
        super().__init__()
        self.trajectories = trajectories

    def draw(self, x0: Tensor, label: Tensor | None, k: int, K: int, generator: torch.Generator) -> Draw:
        known = self.trajectories
        if label is None or len(label) != len(x0):
            raise ValueError("regression on f* wants to know which trajectory is whose: its data are Trajectories")
        j = torch.randint(len(known.times), (len(x0),), generator=generator)
        t, x_t = known.times[j, label], known.points[j, label]
        eps = known.schedule.eps_hat(x_t, known.ends[label], t).to(x0.dtype)
        return Draw(t=t, eps=eps, seed=dropout_seeds(len(x0), k, generator))

    def loss(
        self, f: Denoise, f_target: Denoise, x0: Tensor, label: Tensor | None, draw: Draw, k: int, K: int
    ) -> Tensor:
        x_t = self.trajectories.schedule.add_noise(x0, draw.eps, draw.t)
        with dropout_from(draw.seed):
            return l2(f(x_t, draw.t), x0)
