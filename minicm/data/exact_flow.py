"""The probability-flow ODE of a known score, solved nearly to rounding: each sample with steps of its own.

Score-SDE, arXiv:2011.13456, Eq. 13, in the coordinates y = x/alpha, lambda = sigma/alpha that all clocks share (EDM,
arXiv:2206.00364, Eq. 4):   dy/dlambda = eps_hat = -lambda score(y, lambda).

Three choices make it quick and safe.

- The time is q = asinh(lambda/c): like log(lambda) above c, where the modes part, but regular at lambda = 0, which VP
  and TrigFlow reach. c is the width of the narrowest component: below it nothing happens any more.
- The state is v = (y - mean)/sqrt(lambda^2 + sigma_d^2): of order 1 at every time, and constant where only the mean and
  the standard deviation of the data are seen.
- The step size is the sample's own. Points beside a ridge between two modes need several times the steps of the others,
  and their errors grow a thousandfold and more on the way down: a norm over the whole batch would overlook them. So the
  answer for a sample does not hang on its companions, either.

The batch is the *last* axis here, (d, B): then a (B,) time broadcasts, and reductions run over the leading axes.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Rate = Callable[..., Tensor]

TOL = 1e-13  # error allowed in one step, in units of v; points beside a ridge stretch it by 1e4
FIRST_STEP = 0.5  # in q; rejected where it is too long
SAFETY = 0.8  # aim below the allowed error: a rejected step costs twelve evaluations
MAX_STEPS = 10_000  # a hundred are usual
CHUNK = 8192  # points in flight at a time: bounds the memory, and stays in the cache


@torch.no_grad()
def transport(
    score: Rate,
    mean: Tensor,  # (d, 1), of the data
    sigma_data: float,  # standard deviation of the data
    c: float,  # standard deviation of the narrowest component
    y: Tensor,
    start: Tensor,
    end: Tensor,
    *cond: Tensor,
) -> Tensor:
    """Carry y along dy/dlambda = -lambda score(y, lambda, *cond), from lambda = start to end, either way.

    EDM, arXiv:2206.00364, Eq. 1; the change of variables is this page's own. score: (d, B), (B,), *cond -> (d, B).
    y (d, B), start and end (B,), cond (..., B), in float64. Returns (d, B). Raises RuntimeError after MAX_STEPS.
    """

    def width(lam: Tensor) -> Tensor:
        return (lam.square() + sigma_data**2).sqrt()

    def rate(v: Tensor, q: Tensor, *cond: Tensor) -> Tensor:
        lam = c * q.sinh()
        dlam_dq = (lam.square() + c**2).sqrt()
        slope = score(mean + width(lam) * v, lam, *cond) + v / width(lam)
        return -slope * (lam / width(lam) * dlam_dq)  # by the quotient rule, dv/dlambda = -slope lambda/width

    parts = (y - mean) / width(start), (start / c).asinh(), (end / c).asinh(), *cond
    chunks = zip(*(part.split(CHUNK, dim=-1) for part in parts))
    return mean + width(end) * torch.cat([integrate(rate, *chunk) for chunk in chunks], dim=-1)


def integrate(rate: Rate, v: Tensor, q: Tensor, q_end: Tensor, *cond: Tensor) -> Tensor:
    """Solve dv/dq = rate(v, q, *cond) from q to q_end, adaptively, for each sample by itself.

    Dormand and Prince's pair of order 8 with its estimate of order 5 and 3: Hairer, Norsett, Wanner, Solving Ordinary
    Differential Equations I, section II.10. v (d, B), q and q_end (B,), cond (..., B). Returns v at q_end, (d, B).
    """
    result, alive = v.clone(), torch.arange(v.shape[-1], device=v.device)
    h = FIRST_STEP * torch.sign(q_end - q)
    slope = rate(v, q, *cond)
    for _ in range(MAX_STEPS):
        going = q != q_end
        if not going.all():  # hand in those that have arrived, go on with the others
            result[:, alive[~going]] = v[:, ~going]
            alive, v, q, q_end, h, slope, *cond = (  # type: ignore[assignment]
                part[..., going] for part in (alive, v, q, q_end, h, slope, *cond)
            )
        if alive.numel() == 0:
            return result
        last = h.abs() >= (q_end - q).abs()
        h = torch.where(last, q_end - q, h)
        v_new, slope_new, error = _step(rate, v, q, h, slope, *cond)
        good = error <= 1
        v, slope = torch.where(good, v_new, v), torch.where(good, slope_new, slope)
        q = torch.where(good, torch.where(last, q_end, q + h), q)
        h = h * (SAFETY * error.clamp(min=1e-30) ** (-1 / 8)).clamp(0.2, 5)
    raise RuntimeError(
        f"the exact flow of {alive.numel()} samples takes more than {MAX_STEPS} steps: their ODE is stiff"
    )


def _step(rate: Rate, v: Tensor, q: Tensor, h: Tensor, slope: Tensor, *cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of DOP853: the new v, its slope (the next step's first), and the error (B,) in units of the allowed."""
    A, b, c, to_errors = _tableau(v.device)
    k = v.new_empty(13, *v.shape)
    slopes = k.view(13, -1)
    k[0] = slope
    for i in range(1, 12):
        k[i] = rate(v + h * (A[i, :i] @ slopes[:i]).view_as(v), q + c[i] * h, *cond)
    v_new = v + h * (b @ slopes[:12]).view_as(v)
    k[12] = rate(v_new, q + h, *cond)
    allowed = TOL * (1 + torch.maximum(v.abs(), v_new.abs()))
    fifth, third = ((to_errors @ slopes).view(2, *v.shape) / allowed).square().mean(1)
    # Hairer's way to make one estimate of order 8 of the two; 1e-300 is there for 0/0.
    return v_new, k[12], h.abs() * fifth / (fifth + 0.01 * third + 1e-300).sqrt()


@cache
def _tableau(device: torch.device) -> tuple[Tensor, Tensor, list[float], Tensor]:
    """DOP853's coefficients A (12, 12), b (12,), c and those of its two error estimates (2, 13), from SciPy."""
    from scipy.integrate import DOP853

    A, b, fifth, third = (torch.tensor(part, device=device) for part in (DOP853.A, DOP853.B, DOP853.E5, DOP853.E3))
    return A, b, DOP853.C.tolist(), torch.stack([fifth, third])
