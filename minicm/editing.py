"""Zero-shot editing with a consistency function: keep what is known of a sample, generate the rest.

CM, arXiv:2303.01469, section 3 and Algorithm 4 (appendix D). The sample is seen through an invertible linear A; a mask Omega says
which of its coefficients are generated. After every prediction the known ones are put back. No training is involved.

| task          | A                                    | known: Omega = 0                   |
|---------------|--------------------------------------|------------------------------------|
| inpaint       | identity                             | the pixels that are there          |
| colourise     | orthogonal mix of the channels       | coefficient 0, the luminance       |
| super_resolve | orthogonal mix of each patch         | coefficient 0, the patch's average |
| stroke        | identity                             | nothing; the start is the drawing  |
| interpolate   | none: a path between two noises      |                                    |
| denoise       | none: f itself, at any noise level   |                                    |

Putting the known part back is not conditioning, even where f is exact: with few times the generated part has hardly
heard of the known one. With many it tends to the exact conditional law; for a Gaussian the gap falls as 1/N, and 40
times leave a quarter of it (tests/core/test_editing.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minicm.sampling import check_times, sample
from minicm.schedules import Denoise

LUMINANCE = (0.2989, 0.5870, 0.1140)  # of red, green, blue (ITU-R BT.601)
Times = Tensor | Sequence[float]


@dataclass(frozen=True)
class LinearOperator:
    """An invertible linear map of samples: forward (B, *D) -> (B, *E), inverse (B, *E) -> (B, *D)."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


IDENTITY = LinearOperator(lambda x: x, lambda x: x)


def edit(
    f: Denoise,
    y: Tensor,
    A: LinearOperator,
    mask: Tensor,
    times: Times,
    generator: torch.Generator | None = None,
    **cond: Any,
) -> Tensor:
    """A sample (B, *D) whose coefficients A x are those of y where the mask is False, generated where it is True.

    CM, arXiv:2303.01469, Algorithm 4: multistep sampling of the function "f, then put the known part back", started
    from y's known part plus noise. y (B, *D); mask: bool, broadcasts against A y; times decrease in f's clock, by
    default of the paper a whole Karras grid. What y holds in its masked part does not matter. cond: label, w (B,).
    Raises ValueError for a mask that does not fit and for times that sample() refuses.
    """
    known = A.forward(y)
    mask = _fitting(mask, known)
    start = A.inverse(known.masked_fill(mask, 0))
    return stroke(_PutBack(f, A, known, mask), start, times, generator, **cond)


class _PutBack:
    """f, and then the known coefficients put back; the rest of f shows through."""

    def __init__(self, f: Denoise, A: LinearOperator, known: Tensor, mask: Tensor) -> None:
        self.f, self.A, self.known, self.mask = f, A, known, mask

    def __call__(self, x: Tensor, t: Tensor, **given: Any) -> Tensor:
        return self.A.inverse(torch.where(self.mask, self.A.forward(self.f(x, t, **given)), self.known))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["f"], name)


def inpaint(
    f: Denoise, y: Tensor, missing: Tensor, times: Times, generator: torch.Generator | None = None, **cond: Any
) -> Tensor:
    """Fill in what is missing of y (B, *D); missing: bool, broadcasts against y, True where to generate.

    CM, arXiv:2303.01469, Algorithm 4 with A the identity: the rest of y comes back bit for bit. For points of
    two numbers and missing = [False, True] it completes the second coordinate. Raises ValueError as edit() does.
    """
    return edit(f, y, IDENTITY, missing, times, generator, **cond)


def colourise(f: Denoise, grey: Tensor, times: Times, generator: torch.Generator | None = None, **cond: Any) -> Tensor:
    """A colour image (B, 3, *S) for a grey one (B, 1, *S), whose luminance it keeps.

    CM, arXiv:2303.01469, section 3 and Algorithm 4 with A an orthogonal mix of the channels, whose first column is
    the luminance. Raises ValueError for an image that is not (B, 1, *S).
    """
    if grey.ndim < 2 or grey.shape[1] != 1:
        raise ValueError(f"a grey image has shape (B, 1, ...), got {tuple(grey.shape)}: keep one channel")
    y = grey.expand(-1, 3, *grey.shape[2:])
    return edit(f, y, channels(orthogonal(LUMINANCE)), torch.arange(3) > 0, times, generator, **cond)


def super_resolve(
    f: Denoise, low: Tensor, patch: int, times: Times, generator: torch.Generator | None = None, **cond: Any
) -> Tensor:
    """An image (B, C, patch*H, patch*W) for a small one (B, C, H, W), which its patch averages equal.

    CM, arXiv:2303.01469, section 3 and Algorithm 4 with A an orthogonal mix of each patch, whose first column is
    constant: coefficient 0 is the average times sqrt(patch size). Any number of space dimensions; patch in pixels.
    Raises ValueError for patch < 1.
    """
    if patch < 1:
        raise ValueError(f"patch must be at least 1 pixel, got {patch}")
    y, size = low, patch ** (low.ndim - 2)
    for dim in range(2, low.ndim):
        y = y.repeat_interleave(patch, dim)
    A = patches(patch, orthogonal([1.0] * size))
    return edit(f, y, A, torch.arange(size) > 0, times, generator, **cond)


def stroke(f: Denoise, y: Tensor, times: Times, generator: torch.Generator | None = None, **cond: Any) -> Tensor:
    """A sample that resembles the rough drawing y (B, *D): noise is added up to times[0], and f takes it away.

    SDEdit (arXiv:2108.01073) with a consistency function; CM, arXiv:2303.01469, appendix D, at the times 5.38, 2.24.
    It is not edit() with a mask of ones, as the paper's text has it: Algorithm 4's first line would blank y.
    A larger times[0] is freer. Raises ValueError for times that sample() refuses.
    """
    times = check_times(times, f.schedule, f.t_min)
    device = None if generator is None else generator.device
    eps = torch.randn(y.shape, generator=generator, device=device, dtype=y.dtype).to(y.device)
    x = f.schedule.add_noise(y, eps, times[0].to(y.device).expand(len(y)))
    return sample(f, x, times, generator=generator, **cond)


def denoise(f: Denoise, x: Tensor, t: float, **cond: Any) -> Tensor:
    """The clean point that f sees behind x (B, *D), which holds noise of time t (in EDM its standard deviation).

    CM, arXiv:2303.01469, section 3: one call of f serves every noise level in [t_min, t_max]. In EDM x is the
    clean point plus noise; in other clocks it is alpha times the clean point, plus noise.
    """
    return sample(f, x, [t], **cond)


def interpolate(f: Denoise, x_a: Tensor, x_b: Tensor, fractions: Sequence[float] | Tensor, **cond: Any) -> Tensor:
    """Samples on the way from f(x_a) to f(x_b): the noises x_a, x_b (B, *D) are mixed on a sphere, then denoised.

    CM, arXiv:2303.01469, section 3. x_a and x_b live at t_max, as f.schedule.prior() draws them.
    Returns (len(fractions), B, *D); fraction 0 is f(x_a), 1 is f(x_b).
    """
    path = [slerp(x_a, x_b, float(fraction)) for fraction in fractions]
    return torch.stack([sample(f, x, [f.schedule.t_max], **cond) for x in path])


def slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    """Spherical interpolation from a to b, each sample of (B, *D) by its own angle.

    Shoemake (SIGGRAPH 1985); CM, arXiv:2303.01469, section 3. A straight mix of two noises would be too small to be
    noise. Parallel noises are mixed linearly; opposite ones have no one way between them.
    """
    cosine = torch.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = cosine.acos().reshape(-1, *[1] * (a.ndim - 1)) / torch.pi
    # sin(u angle)/sin(angle), written with sinc so that the angle 0 has its limit u
    share_a = (1 - fraction) * torch.sinc((1 - fraction) * angle) / torch.sinc(angle)
    share_b = fraction * torch.sinc(fraction * angle) / torch.sinc(angle)
    return share_a * a + share_b * b


def orthogonal(first: Sequence[float]) -> Tensor:
    """An orthogonal matrix (n, n), float64, whose first column is parallel to `first`.

    Householder's reflection of the first axis onto that direction: no decomposition, no sign to fix.
    """
    column = torch.tensor(first, dtype=torch.float64)
    column = column / column.norm()
    axis = torch.zeros_like(column)
    axis[0] = 1
    normal = column - axis
    length2 = (normal @ normal).clamp(min=1e-300)  # n = 1: no reflection
    return torch.eye(len(column), dtype=torch.float64) - 2 * torch.outer(normal, normal) / length2


def channels(Q: Tensor) -> LinearOperator:
    """Mix the channels of (B, C, *S) by an orthogonal Q (C, C); the coefficients are (B, *S, C)."""
    return LinearOperator(lambda x: x.movedim(1, -1) @ Q.to(x), lambda z: (z @ Q.T.to(z)).movedim(-1, 1))


def patches(size: int, Q: Tensor) -> LinearOperator:
    """Mix the pixels of each patch of (B, C, *S) by an orthogonal Q; the coefficients are (B, C, *S/size, size^d)."""

    def forward(x: Tensor) -> Tensor:
        d = x.ndim - 2
        if any(n % size for n in x.shape[2:]):
            raise ValueError(f"an image of {tuple(x.shape[2:])} is not made of patches of {size}")
        blocks = x.reshape(*x.shape[:2], *[m for n in x.shape[2:] for m in (n // size, size)])
        outer, inner = range(2, 2 + 2 * d, 2), range(3, 3 + 2 * d, 2)
        return blocks.permute(0, 1, *outer, *inner).flatten(2 + d) @ Q.to(x)

    def inverse(z: Tensor) -> Tensor:
        d = z.ndim - 3
        blocks = (z @ Q.T.to(z)).reshape(*z.shape[:-1], *[size] * d)
        order = [m for i in range(d) for m in (2 + i, 2 + d + i)]
        return blocks.permute(0, 1, *order).reshape(*z.shape[:2], *[n * size for n in z.shape[2:-1]])

    return LinearOperator(forward, inverse)


def _fitting(mask: Tensor, known: Tensor) -> Tensor:
    """The mask as bool on the coefficients' device. Raises ValueError where it does not broadcast to them."""
    mask = torch.as_tensor(mask, device=known.device).bool()
    try:
        return mask.expand(known.shape)
    except RuntimeError:
        shapes = f"{tuple(mask.shape)} does not broadcast against A y, {tuple(known.shape)}"
        raise ValueError(f"the mask {shapes}: one value a coefficient") from None
