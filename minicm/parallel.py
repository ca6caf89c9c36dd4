"""Several processes, one a GPU: each draws the whole batch, computes its share of it, and the gradients are summed.

So the result is that of one process, to rounding, however many there are; nothing is wrapped, and what an objective
learns of its own is summed along. Left out, against DistributedDataParallel: sums that overlap the backward pass.

    torchrun --nproc-per-node 8 -m minicm train cifar10-teacher --folder runs/teacher ...

starts one process a GPU and tells each its place in the environment; alone, a process needs none of this.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def processes() -> Iterator[None]:
    """Join the group that torchrun started, if it did, and leave it at the end; "cuda" is then this process's own GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place among them, from 0; number 0 alone writes files."""
    return dist.get_rank() if world() > 1 else 0


def share(n: int, parts: int = 1) -> list[slice]:
    """This process's rows of a batch of n, in `parts` slices, as equal as they can be."""
    first, last = rank() * n // world(), (rank() + 1) * n // world()
    edges = [first + i * (last - first) // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:])]


def from_first(modules: Iterable[nn.Module]) -> None:
    """Give every process the weights and buffers of number 0."""
    if world() > 1:
        for module in modules:
            for value in module.state_dict().values():
                whole = value.contiguous()  # channels_last is not
                dist.broadcast(whole, 0)
                value.copy_(whole)


def sum_gradients(loss: Tensor, parameters: Iterable[Tensor]) -> None:
    """Sum a loss and the gradients over all processes, in place and in one exchange; there must be several."""
    values = [loss, *(p.grad for p in parameters if p.grad is not None)]
    flat = torch.cat([value.reshape(-1) for value in values])
    dist.all_reduce(flat)
    parts = flat.split([value.numel() for value in values])
    for value, part in zip(values, parts):
        value.copy_(part.view(value.shape))


def any_process(wish: bool, device: torch.device | str) -> bool:
    """Whether any process wishes it; all must ask at the same step. Waits for the device where there are several."""
    if world() == 1:
        return wish
    flag = torch.tensor(float(wish), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)
