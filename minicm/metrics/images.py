"""How good are pictures: distances between features, agreement with labels, and whether training pictures were copied.

The Frechet distance is FID's formula on the features that it is given. On those of a small classifier trained here, "class
Frechet", it is no FID: its unit is that classifier's, so numbers compare only with each other. On Inception's
(`minicm.metrics.inception`) it is FID. Read every number beside its floor, what real pictures score that nobody trained
on. A model that copies its training set *beats* the floor of most of them: `copied` and `nearest` tell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minicm.metrics.clouds import frechet_distance
from minicm.metrics.floors import mean_and_spread
from minicm.metrics.rows import Row


@dataclass(frozen=True)
class Reference:
    """What pictures are measured against."""

    train: Tensor  # (N, C, H, W), the pictures that were trained on
    held_out: Tensor  # (M, C, H, W), pictures of the same kind that were not
    held_out_label: Tensor  # (M,)
    classifier: Callable[[Tensor], Tensor]  # (B, C, H, W) -> logits (B, classes)
    features: Callable[[Tensor], Tensor]  # (B, C, H, W) -> (B, d): the classifier's, or Inception's for FID
    distance: str = "class Frechet"  # what the Frechet distance on these features is called


@torch.no_grad()
def in_batches(network: Callable[[Tensor], Tensor], x: Tensor, size: int = 500) -> Tensor:
    """A network's answers to many pictures, (n, C, H, W) -> (n, d), a few at a time and without gradient."""
    return torch.cat([network(part) for part in x.split(size)])


def label_agreement(classifier: Callable[[Tensor], Tensor], x: Tensor, label: Tensor) -> float:
    """Share of pictures (n, C, H, W) that the classifier takes for what was asked for, label (n,)."""
    return (in_batches(classifier, x).argmax(1) == label).double().mean().item()


def sure(classifier: Callable[[Tensor], Tensor], x: Tensor, least: float = 0.9) -> float:
    """Share of pictures (n, C, H, W) to some class of which the classifier gives a probability of at least `least`."""
    return (in_batches(classifier, x).softmax(1).amax(1) >= least).double().mean().item()


def class_variation(classifier: Callable[[Tensor], Tensor], x: Tensor, train: Tensor) -> float:
    """Total variation between the shares of the classes that the classifier sees in x and in the training pictures."""
    shares = []
    for pictures in (x, train):
        logits = in_batches(classifier, pictures)
        shares.append(torch.bincount(logits.argmax(1), minlength=logits.shape[1]) / len(pictures))
    return (shares[0] - shares[1]).abs().sum().item() / 2


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision, the share of fakes that look real, and recall, the share of real ones that some fake resembles.

    Kynkaanniemi et al., arXiv:1904.06991, Eqs. 1 and 2: a point belongs to a set if it is no farther from one of its
    members than that one is from its own k-th neighbour. Features (n, d) and (m, d); recall grows with m.
    Raises ValueError for sets of no more than k points.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"a k-th neighbour needs more than k = {k} points, got {len(real)} and {len(fake)}")
    real, fake = real.double(), fake.double()
    return _inside(fake, real, k), _inside(real, fake, k)


def _inside(points: Tensor, members: Tensor, k: int, size: int = 1000) -> float:
    far = [torch.cdist(part, members).kthvalue(k + 1, dim=1).values for part in members.split(size)]
    radius = torch.cat(far)  # to the k-th neighbour: the first of all is the point itself
    inside = [(torch.cdist(part, members) <= radius).any(1) for part in points.split(size)]
    return torch.cat(inside).double().mean().item()


def nearest(x: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of each picture (n, *D) to the nearest training picture (N, *D), and which that is; (n,), (n,).

    Euclidean, over pixels.
    """
    parts = x.flatten(1).to(train.dtype).split(500)
    found = [torch.cdist(part, train.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").min(1) for part in parts]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def copied(x: Tensor, train: Tensor, held_out: Tensor, quantile: float = 0.05) -> float:
    """Share of pictures nearer to a training picture than all but `quantile` of the held-out pictures are.

    Pictures as new as the held-out ones score `quantile` itself; copies score 1.
    """
    limit = nearest(held_out, train)[0].quantile(quantile)
    return (nearest(x, train)[0] < limit).double().mean().item()


def measure_images(
    x: Tensor,
    reference: Reference,
    *,
    label: Tensor | None = None,
    repeats: int = 5,
    generator: torch.Generator | None = None,
) -> list[Row]:
    """All measures of pictures x (n, C, H, W), clamped to [-1, 1], each beside what held-out pictures score.

    label (n,): the classes that were asked for; None where none were. Held-out pictures are drawn with replacement,
    n of them, `repeats` times: chance makes their class counts, and with them the Frechet distance, differ from the
    training set's, as it does for x. Precision and recall are of as many pictures as are held out, no more.
    """
    r, x = reference, x.clamp(-1, 1)
    real = in_batches(r.features, r.train)
    draws = [r.held_out[torch.randint(len(r.held_out), (len(x),), generator=generator)] for _ in range(repeats)]

    def both(name: str, measure: Callable[[Tensor], float]) -> Row:
        return Row(name, measure(x), *mean_and_spread(measure(draw) for draw in draws))

    few = [in_batches(r.features, part[: len(r.held_out)]) for part in (x, r.held_out)]
    (precision, recall), (precision_floor, recall_floor) = (precision_recall(real, part) for part in few)
    gap, gap_floor = (nearest(part, r.train)[0].median().item() for part in (x, r.held_out))
    rows = [
        both(r.distance, lambda pictures: frechet_distance(in_batches(r.features, pictures), real)),
        Row("precision", precision, precision_floor),
        Row("recall", recall, recall_floor),
        both("class counts", lambda pictures: class_variation(r.classifier, pictures, r.train)),
        Row("classifier sure", sure(r.classifier, x), sure(r.classifier, r.held_out)),
        Row("nearest", gap / gap_floor, 1.0),
        Row("copied", copied(x, r.train, r.held_out), 0.05),
    ]
    if label is not None:
        best = label_agreement(r.classifier, r.held_out, r.held_out_label)
        rows.append(Row("label agreement", label_agreement(r.classifier, x, label), best))
    return rows
