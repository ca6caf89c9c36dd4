"""What a noisy point tells about the component and the clean point it came from, for a Gaussian mixture.

EDM, arXiv:2206.00364, appendix B.3, for full covariances. In the coordinates y = x/alpha, lambda = sigma/alpha, which
all clocks share, the noised mixture sum_k pi_k N(mu_k, S_k) is sum_k pi_k N(mu_k, C_k) with C_k = S_k + lambda^2 I:

    r_k    = pi_k N(y; mu_k, C_k) / sum of these                             responsibilities, a softmax
    score  = -sum_k r_k C_k^{-1} (y - mu_k)
    x0_hat = y + lambda^2 score = sum_k r_k (mu_k + S_k C_k^{-1} (y - mu_k))           Tweedie

A class has its own pi, zero outside it. Guidance, D_c + w (D_c - D_null), is linear in r: it mixes two sets of them.

Everything is done in the eigenvectors of the S_k, where C_k is diagonal: index j counts those of one component, k the
components. The batch is the last axis, (d, B) and (j, k, B), so that lambda (B,) broadcasts. float64 throughout.
"""

import math

import torch
from torch import Tensor


class Posterior:
    """A mixture on one device: means (K, d), covs (K, d, d), weights (K,), labels (K,).

    Attributes: `log_prior` (K, classes + 1), log pi in each class, the last column being the null label, that of the
    whole mixture; `narrowest`, the smallest standard deviation of a component along any axis.
    Methods take y (d, B), lam (B,), the columns of log_prior that hold for the samples (K, B), and w (B,) or None.
    """

    def __init__(self, means: Tensor, covs: Tensor, weights: Tensor, labels: Tensor, device: torch.device) -> None:
        eig, Q = torch.linalg.eigh(covs)  # S_k = Q_k diag(eig_k) Q_k^T
        basis = Q.permute(2, 0, 1)  # [j, k]: the j-th eigenvector of S_k
        centre = torch.einsum("jki,ki->jk", basis, means)
        in_class = torch.arange(int(labels.max()) + 1)[:, None] == labels
        prior = torch.cat([weights * in_class, weights[None]])
        self.log_prior = (prior / prior.sum(1, keepdim=True)).log().T.to(device)
        self.basis = basis.flatten(0, 1).contiguous().to(device)  # (jk, d)
        self.centre, self.eig = (part[:, :, None].contiguous().to(device) for part in (centre, eig.T))
        self.narrowest = math.sqrt(eig.min().item())

    def components(self, y: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log N(y; mu_k, C_k) (K, B), Mahalanobis distances squared (K, B), and C_k^{-1}(y - mu_k) (j, k, B)."""
        away = torch.addmm(-self.centre.flatten(0, 1), self.basis, y).view(*self.eig.shape[:2], -1)
        C = self.eig + lam.square()
        pull = away / C
        distance2 = (away * pull).sum(0)
        # One logarithm for up to four axes: it is the slow part, and a product of more may overflow.
        log_det = sum(axes.prod(0).log() for axes in C.split(4)) + len(C) * math.log(2 * math.pi)
        return -(log_det + distance2) / 2, distance2, pull

    def score(self, y: Tensor, lam: Tensor, log_prior: Tensor, w: Tensor | None = None) -> Tensor:
        """-sum_k r_k C_k^{-1}(y - mu_k), (d, B)."""
        log_normal, _, pull = self.components(y, lam)
        return -self._sum(self._responsibilities(log_normal, log_prior, w) * pull)

    def x0_hat(self, y: Tensor, lam: Tensor, log_prior: Tensor, w: Tensor | None = None) -> Tensor:
        """sum_k r_k (mu_k + S_k C_k^{-1}(y - mu_k)), (d, B)."""
        # Not y + lam^2 score, which cancels at large lam.
        log_normal, _, pull = self.components(y, lam)
        return self._sum(self._responsibilities(log_normal, log_prior, w) * (self.centre + self.eig * pull))

    def _responsibilities(self, log_normal: Tensor, log_prior: Tensor, w: Tensor | None) -> Tensor:
        """r (K, B), summing to one over k; with guidance some may be negative."""
        r = (log_normal + log_prior).softmax(0)
        if w is None:
            return r
        return r + w * (r - (log_normal + self.log_prior[:, -1:]).softmax(0))

    def _sum(self, parts: Tensor) -> Tensor:
        """Sum over the components, (j, k, B), and back from their eigenvectors to (d, B)."""
        return self.basis.T @ parts.flatten(0, 1)


def check_mixture(means: Tensor, covs: Tensor, weights: Tensor, labels: Tensor) -> None:
    """Raise ValueError for parameters that make no mixture, naming the component at fault.

    means (K, d), covs (K, d, d), weights (K,), labels (K,): shapes, finite, covariances symmetric and positive
    definite, weights >= 0 and of sum 1 within 1e-6, labels such that every class up to the last has a component.
    """
    K, d = means.shape if means.ndim == 2 else (0, 0)
    if K * d == 0:
        raise ValueError(f"means must be (K, d), one component at least, got {tuple(means.shape)}")
    for name, part, shape in (("covs", covs, (K, d, d)), ("weights", weights, (K,)), ("labels", labels, (K,))):
        if part.shape != shape:
            raise ValueError(f"{name} must be {shape} beside means {(K, d)}, got {tuple(part.shape)}")
    _demand(means.isfinite(), "mean must be finite", means)
    _demand(covs.isfinite(), "covariance must be finite", covs)
    _demand(weights >= 0, "weight must be 0 or more", weights)  # NaN is not
    tilt = (covs - covs.mT).abs()
    _demand(tilt <= 1e-6 * covs.abs().max(), "covariance must be symmetric", covs)  # float32 products are to 1e-6
    eig = torch.linalg.eigvalsh(covs)
    _demand(eig > 1e-14 * eig.abs().amax(1, keepdim=True), "covariance must be positive definite; eigenvalues", eig)
    if not (weights.sum() - 1).abs() <= 1e-6:
        raise ValueError(f"weights must sum to one, got {weights.sum().item():g}: divide them by their sum")
    _demand((labels >= 0) & (labels == labels.round()), "label must be a whole number, 0 or more", labels)
    for c in range(int(labels.max()) + 1):
        if not weights[labels == c].sum() > 0:
            raise ValueError(f"class {c} of 0..{int(labels.max())} has no component with a weight above 0")


def _demand(good: Tensor, what: str, values: Tensor) -> None:
    for k in (~good.reshape(len(good), -1).all(1)).nonzero().flatten().tolist()[:1]:
        raise ValueError(f"component {k}: its {what}, got {values[k].tolist()}")
