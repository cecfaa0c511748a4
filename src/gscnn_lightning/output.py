"""What a network says: as tensors of a batch, and as arrays of one image."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # pictures of earlier runs are shown without torch, which takes seconds to import
    from torch import Tensor

TRUST = ("confidence", "entropy")
"""Maps of how far a prediction can be trusted, by their names in `Prediction`; made only where they are asked for."""

# Rows whose probabilities are worked out at once: those of all classes of a large frame would be its largest tensor.
_ROWS = 64

_TINY = 1e-38  # float32, normal


class GSCNNOutput(NamedTuple):
    """What the network returns, in training and evaluation alike.

    Attributes:
        seg_logits: (B, K, H, W) class scores at input size.
        boundary_logits: (B, 1, H, W) boundary scores at input size; None without a shape stream.
        gates: attention maps alpha_t (B, 1, h, w) in [0, 1] of the three gated convolutions; empty without them.
    """

    seg_logits: "Tensor"
    boundary_logits: "Tensor | None"
    gates: "tuple[Tensor, ...]"

    @property
    def labels(self) -> "Tensor":
        """(B, H, W) int64, the class with the highest score."""
        # The same as argmax, and on CPUs faster.
        return self.seg_logits.max(dim=1).indices

    @property
    def boundary_prob(self) -> "Tensor | None":
        """(B, 1, H, W) float32 in [0, 1]; None without a shape stream."""
        return None if self.boundary_logits is None else self.boundary_logits.float().sigmoid()

    def trust(self, name: str) -> "Tensor":
        """How far the labels can be trusted, (B, H, W) float32 in [0, 1].

        After several windows, scales or flips, logits are logarithms of mean probabilities, so that these are what the
        map is made of, as the labels are.

        Args:
            name: "confidence", the probability of the class with the highest score; or "entropy" of the probabilities
                as a share of the largest that K classes can have, log K: 0 where one class has all, 1 where all have
                the same. With one class it is 0.
        """
        strips = (rows.float().softmax(1) for rows in self.seg_logits.split(_ROWS, dim=2))
        if name == "confidence":
            return _joined([prob.amax(1) for prob in strips])
        most = math.log(max(2, self.seg_logits.shape[1]))
        # x log x is 0 at 0, where the logarithm is not.
        return _joined([-(prob * prob.clamp_min(_TINY).log()).sum(1) / most for prob in strips]).clamp_(0, 1)


@dataclass  # not frozen: Lightning goes through what a prediction step returns, and refuses frozen ones
class Prediction:
    """One image with what a network says of it, and the truth where that is known.

    Attributes:
        name: unique, relative, without suffix; may contain "/".
        photo: (H, W, 3) uint8 RGB.
        preds: (H, W) uint8 (int64 for more than 256 classes), predicted train ids.
        boundary_prob: (H, W) float32 in [0, 1]; None from a network without shape stream.
        gates: (h, w) float32 in [0, 1] each, of any size; empty from a network without shape stream.
        labels: (H, W) integer, true train ids; None if they are not known.
        boundary: (H, W), true boundary in {0, 1}; None if it is not known.
        confidence: (H, W) float32 in [0, 1], see `GSCNNOutput.trust`; None unless it was asked for.
        entropy: (H, W) float32 in [0, 1], likewise.
    """

    name: str
    photo: npt.NDArray[np.uint8]
    preds: npt.NDArray[np.uint8]
    boundary_prob: npt.NDArray[np.floating] | None = None
    gates: tuple[npt.NDArray[np.floating], ...] = ()
    labels: npt.NDArray[np.integer] | None = None
    boundary: npt.NDArray[np.generic] | None = None
    confidence: npt.NDArray[np.floating] | None = None
    entropy: npt.NDArray[np.floating] | None = None


def _joined(strips: "list[Tensor]") -> "Tensor":
    import torch

    return torch.cat(strips, dim=1)


def predictions(
    output: GSCNNOutput, batch: Mapping[str, Any], with_gates: bool = True, trust: Collection[str] = ()
) -> list[Prediction]:
    """What a network says of each image of a batch, as arrays.

    Args:
        output: what it returned for the images of the batch.
        batch: "name" (B strings) and "image" (B, 3, H, W) uint8.
        with_gates: False leaves the gates on their device.
        trust: which of the maps "confidence" and "entropy" to make.

    Returns:
        One record per image, without labels and true boundary.

    Raises:
        ValueError: images, names and output do not belong together.
    """
    image, logits = batch["image"], output.seg_logits
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2:] != logits.shape[2:]:
        raise ValueError(
            f"image has shape {tuple(image.shape)} and the logits {tuple(logits.shape)}: give the images (B, 3, H, W) "
            "that the output is of"
        )
    if not len(batch["name"]) == len(image) == len(logits):
        raise ValueError(
            f"{len(batch['name'])} names for {len(image)} images and {len(logits)} predictions: give one of each"
        )
    if str(image.dtype) != "torch.uint8":
        raise ValueError(f"image has data type {image.dtype}: give pictures as they are shown, uint8")
    photos = image.permute(0, 2, 3, 1).cpu().numpy()
    labels, prob = output.labels, output.boundary_prob
    # Label maps are bytes wherever a byte can hold the classes.
    preds = (labels.byte() if output.seg_logits.shape[1] <= 256 else labels).cpu().numpy()
    probs = [None] * len(preds) if prob is None else list(prob[:, 0].cpu().numpy())
    gates = [gate[:, 0].float().cpu().numpy() for gate in output.gates] if with_gates else []
    maps = {name: output.trust(name).cpu().numpy() for name in TRUST if name in trust}
    return [
        Prediction(
            str(name),
            photos[index],
            preds[index],
            probs[index],
            tuple(gate[index] for gate in gates),
            **{kind: images[index] for kind, images in maps.items()},
        )
        for index, name in enumerate(batch["name"])
    ]
