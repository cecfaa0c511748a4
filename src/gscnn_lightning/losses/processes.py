"""Sums over all processes of a training, for losses that are one fraction of the whole batch."""

import torch
import torch.distributed as dist
from torch import Tensor


def over_processes(sums: Tensor) -> Tensor:
    """What every process has summed over its share of the batch, summed over all processes.

    Its gradient is that of the own share times the number of processes. `DistributedDataParallel` averages gradients,
    so the average is the gradient of the sum, as if one process had the whole batch.

    Args:
        sums: any shape, the same in all processes, each of which has to call this as often as the others.

    Returns:
        The same shape, in every process the same numbers; ``sums`` itself where there is one process.

    Example:
        >>> over_processes(torch.tensor([2.0, 3.0]))
        tensor([2., 3.])
    """
    if not (dist.is_available() and dist.is_initialized()):
        return sums
    total = sums.detach().clone()
    dist.all_reduce(total)
    return total + dist.get_world_size() * (sums - sums.detach()) if sums.requires_grad else total


def stacked_over_processes(*sums: Tensor) -> tuple[Tensor, ...]:
    """:func:`over_processes` of several tensors of one shape, in one message."""
    return over_processes(torch.stack(sums)).unbind()
