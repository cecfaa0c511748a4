"""Terms for what is thin or rare: extensions, no part of the paper's loss."""

import torch
from torch import Tensor

from gscnn_lightning.losses.processes import stacked_over_processes


def soft_dice(log_probs: Tensor, nll: Tensor, labels: Tensor, ignore_index: int = 255, sync: bool = False) -> Tensor:
    """1 - soft Dice score, mean over the classes of the batch, each of which counts the same however few its pixels.

    The Dice score of a class is twice the probability on its pixels over the sum of the probability everywhere and the
    number of its pixels (Milletari et al., V-Net, 3DV 2016, without squares), here over all images of the batch.

    Args:
        log_probs: (B, K, H, W) logarithms of class probabilities.
        nll: (B, H, W) negative logarithm of the probability of the label, 0 on void.
        labels: (B, H, W) int64, 0 to K - 1 or ``ignore_index``.
        ignore_index: label of void pixels, which have no influence.
        sync: over the images of all processes, see `over_processes`.

    Returns:
        A number in [0, 1]; 0 where everything is void.
    """
    valid = labels != ignore_index
    there = valid.flatten().to(log_probs.dtype)
    ids = labels.where(valid, 0).flatten()
    zeros = log_probs.new_zeros(log_probs.shape[1])
    pixels = zeros.index_add(0, ids, there)
    both = zeros.index_add(0, ids, torch.exp(-nll).flatten() * there)
    predicted = (log_probs.exp() * valid.unsqueeze(1)).sum((0, 2, 3))
    if sync:
        both, predicted, pixels = stacked_over_processes(both, predicted, pixels)
    present = (pixels > 0).to(log_probs.dtype)
    losses = 1 - 2 * both / (predicted + pixels).clamp(min=1)
    return (losses * present).sum() / present.sum().clamp(min=1)


def boundary_pixels_mean(
    nll: Tensor, labels: Tensor, boundaries: Tensor, ignore_index: int = 255, sync: bool = False
) -> Tensor:
    """Mean cross-entropy of the pixels on true boundaries.

    Args:
        nll: (B, H, W) negative logarithm of the probability of the label.
        labels: (B, H, W) int64.
        boundaries: (B, 1, H, W) or (B, H, W), 1 on true boundaries, 0 elsewhere.
        ignore_index: label of void pixels, which have no influence.
        sync: over the pixels of all processes, see `over_processes`.

    Returns:
        A number of at least 0; 0 where there is no boundary.
    """
    here = ((boundaries.reshape(labels.shape) == 1) & (labels != ignore_index)).to(nll.dtype)
    total, count = (nll * here).sum(), here.sum()
    if sync:
        total, count = stacked_over_processes(total, count)
    return total / count.clamp(min=1)
