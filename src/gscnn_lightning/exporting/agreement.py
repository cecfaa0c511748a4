"""Whether an exported file says what its checkpoint says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from gscnn_lightning.data.scenes.draw import draw_scene
from gscnn_lightning.exporting.graph import BOUNDARY, LABELS, LOGITS
from gscnn_lightning.exporting.runtimes import Loaded

Pictures = Sequence[npt.NDArray[np.uint8]]

SIZES = ((96, 160), (129, 97), (33, 47), (240, 320), (200, 136))
"""Heights and widths that exports are compared at: two of them odd, and all smaller than a window."""

MOST = 1e-3
"""Logits may differ by this much, and probabilities."""

LEAST_EQUAL = 0.9999
"""Share of the pixels that have to have the same label: those where two classes score the same may differ."""

LEAST_EQUAL_INT8 = 0.9
"""The same of 8-bit networks, whose scores do differ."""


@dataclass
class Difference:
    """How far a file is from its checkpoint.

    Attributes:
        logits: largest difference.
        others: largest difference of boundary probabilities and gates.
        equal: share of the pixels with the same label, in [0, 1].
        sizes: heights and widths that were compared.
    """

    logits: float = 0.0
    others: float = 0.0
    equal: float = 1.0
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def is_none(self) -> bool:
        """Whether it is no more than rounding makes; what is not a number is."""
        return self.logits <= MOST and self.others <= MOST and self.equal >= LEAST_EQUAL

    def __str__(self) -> str:
        sizes = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(self.sizes))
        return (
            f"logits differ by at most {self.logits:.1e}, boundary and gates by {self.others:.1e}, and labels are "
            f"equal on {100 * self.equal:.3f} % of the pixels, at {sizes}"
        )


def check_pictures(size: tuple[int, int] | None) -> list[npt.NDArray[np.uint8]]:
    """Drawn streets (H, W, 3) to compare with: of five sizes, or five of the one size."""
    sizes = SIZES if size is None else (size,) * len(SIZES)
    drawn = [draw_scene(index, seed=7, size=_drawable(side))[0] for index, side in enumerate(sizes)]
    return [picture[:height, :width] for picture, (height, width) in zip(drawn, sizes, strict=True)]


def _drawable(size: tuple[int, int]) -> tuple[int, int]:
    """A size at least as large that streets are drawn in: 64 pixels high, and one to three times as wide."""
    height = max(64, size[0], size[1] // 3 + 1)
    return height, max(height, size[1])


@torch.inference_mode()
def difference(network: nn.Module, loaded: Loaded, pictures: Pictures) -> Difference:
    """How far a file is from the network that it was made of.

    Args:
        network: in evaluation mode, as the checkpoint has it.
        loaded: the file.
        pictures: (H, W, 3) each.
    """
    found = Difference(sizes=tuple((p.shape[0], p.shape[1]) for p in pictures))
    equal = pixels = 0
    for image in _batches(pictures):
        told = loaded.run(image)
        output = network(torch.from_numpy(image).permute(0, 3, 1, 2))
        wanted = {LOGITS: output.seg_logits, BOUNDARY: output.boundary_prob}
        wanted |= {f"gate_{index + 1}": gate for index, gate in enumerate(output.gates)}
        for name, tensor in wanted.items():
            if tensor is None or name not in told:
                continue
            same_shape = tuple(tensor.shape) == told[name].shape
            apart = float(np.abs(tensor.numpy() - told[name]).max()) if same_shape else float("nan")
            # Of what is no number, max would keep whichever comes first.
            if name == LOGITS:
                found.logits = float(np.maximum(found.logits, apart))
            else:
                found.others = float(np.maximum(found.others, apart))
        labels = output.labels.numpy()
        equal += int((labels == told[LABELS]).sum()) if told[LABELS].shape == labels.shape else 0
        pixels += labels.size
    found.equal = equal / max(1, pixels)
    return found


def _batches(pictures: Pictures) -> Iterator[npt.NDArray[np.uint8]]:
    for index, picture in enumerate(pictures):
        # The first with its mirror image, as another number of pictures may be a thing of its own.
        batch = [picture, picture[:, ::-1]] if index == 0 else [picture]
        yield np.ascontiguousarray(np.stack(batch))
