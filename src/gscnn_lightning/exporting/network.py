"""An exported file in the place of a task: the same settings, records and windows, whatever program runs it."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gscnn_lightning.errors import ExportError, SettingError
from gscnn_lightning.exporting.facts import Facts, read_facts
from gscnn_lightning.exporting.graph import BOUNDARY, INPUT, LOGITS
from gscnn_lightning.exporting.runtimes import Loaded, Runtime, load
from gscnn_lightning.inference import check_settings, predict_logits
from gscnn_lightning.output import GSCNNOutput


class ExportedNetwork:
    """What predicts like a `GSCNNTask` in evaluation mode.

    Args:
        path: .onnx or .pt2, written by ``gscnn export``.
        device: "auto", "cpu", or "cuda" where ONNX Runtime can.
        runtime: that runs .onnx files, ONNX Runtime by default.
        window: height and width of sliding windows; None for whole pictures, of a file for one size for that size.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the pictures as factors. The file takes bytes, so that pictures of other scales are rounded to
            them, and scores differ a little from the checkpoint's.
        flip_average: average with the mirrored pictures, too.

    Attributes:
        facts: what the file says of itself.
        settings: as the hyperparameters of a task, by attribute.
        class_names: K names.
        class_colors: K RGB colours.
        device: where tensors go in and come out.

    Raises:
        ExportError: the file cannot be used; or it is for one size, and a window of another is asked for.
    """

    def __init__(
        self,
        path: str,
        device: str = "auto",
        runtime: Runtime | None = None,
        window: tuple[int, int] | None = None,
        overlap: float = 0.25,
        scales: Sequence[float] = (1.0,),
        flip_average: bool = False,
    ) -> None:
        check_settings(window, overlap, scales)
        self.path = path
        loaded = load(path, runtime, device)
        self.facts = read_facts(loaded.texts, path)
        _check_interface(loaded, self.facts, path)
        self._run = loaded.run
        fixed = self.facts.size
        if fixed is not None and window is not None and tuple(window) != fixed:
            raise ExportError(
                f"{path} is for {fixed[0]}x{fixed[1]} pixels alone, and window is {list(window)}: leave --window out"
            )
        self.class_names = list(self.facts.class_names)
        self.class_colors = list(self.facts.class_colors)
        self.device = torch.device("cpu")
        self.settings: Any = SimpleNamespace(
            num_classes=len(self.class_names),
            ignore_index=self.facts.ignore_index,
            boundary_tolerances=self.facts.boundary_tolerances,
            shape_stream=self.facts.shape_stream,
            window=window if fixed is None else fixed,
            overlap=overlap,
            scales=tuple(scales),
            flip_average=flip_average,
        )

    def __call__(self, image: Tensor) -> GSCNNOutput:
        """Logits of pictures.

        Args:
            image: (B, 3, H, W), uint8 or float in [0, 1].

        Raises:
            SettingError: the file is for one size, and a side is smaller or larger than that.
        """
        if image.is_floating_point():  # of another scale
            image = (image * 255).round().clamp(0, 255).to(torch.uint8)
        fixed, size = self.facts.size, (image.shape[-2], image.shape[-1])
        if fixed is not None and size != fixed:
            # Windows are as large as the picture where that is smaller.
            if size[0] > fixed[0] or size[1] > fixed[1]:
                raise SettingError(
                    f"{self.path} is for {fixed[0]}x{fixed[1]} pixels alone, not for {size[0]}x{size[1]}"
                )
            rows, columns = (torch.arange(full).clamp(max=side - 1) for full, side in zip(fixed, size, strict=True))
            image = image[..., rows[:, None], columns]
        found = self._run(np.ascontiguousarray(image.permute(0, 2, 3, 1).numpy()))
        maps = {name: torch.from_numpy(value)[..., : size[0], : size[1]] for name, value in found.items()}
        boundary = None
        if self.facts.shape_stream:
            boundary = torch.logit(maps[BOUNDARY], eps=torch.finfo(torch.float32).eps)
        gates = tuple(torch.from_numpy(found[f"gate_{index + 1}"]) for index in range(self.facts.gates))
        return GSCNNOutput(maps[LOGITS], boundary, gates)

    def predict_output(self, image: Tensor, gates: bool = True) -> GSCNNOutput:
        """Logits with the windows, scales and flips of the settings, of pictures of any size; gates if wanted."""
        h = self.settings
        return predict_logits(self, image, h.window, h.overlap, h.scales, h.flip_average, gates=gates)


def _check_interface(loaded: Loaded, facts: Facts, path: str) -> None:
    """Raise unless a file takes and gives what its metadata promise."""
    wanted = [LOGITS, *([BOUNDARY] if facts.shape_stream else []), *(f"gate_{i + 1}" for i in range(facts.gates))]
    shape = next(iter(loaded.inputs.values()), ())
    if list(loaded.inputs) != [INPUT] or len(shape) != 4 or any(name not in loaded.outputs for name in wanted):
        raise ExportError(
            f"{path} takes {', '.join(loaded.inputs)} and gives {', '.join(loaded.outputs)[:200]}, where its metadata "
            f"promise {INPUT} (B, H, W, 3) and {', '.join(wanted)}: it was altered. Export it again"
        )
