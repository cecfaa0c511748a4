"""All scores of a data set from one pass: what validation logs, what test reports, what a comparison resamples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.distributed
from torch import Tensor, nn
from torchmetrics import Metric

from gscnn_lightning.data.classes import CITYSCAPES
from gscnn_lightning.metrics import (
    BoundaryFScore,
    BoundaryIoU,
    BoundaryODS,
    CityscapesScores,
    DistanceCropIoU,
    SegmentationScores,
)
from gscnn_lightning.metrics.cityscapes import CATEGORIES
from gscnn_lightning.metrics.label_maps import class_iou


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image, in [0, 1] or NaN.

    Attributes:
        index: place of the image in its data set.
        name: its name.
        values: boundary F by logged name, such as "boundary_f1_3px", the mean over classes with a boundary in
            prediction or labels; and "miou", the mean over classes in prediction or labels.
    """

    index: int
    name: str
    values: dict[str, float]


@dataclass
class Scores:
    """Scores in [0, 1], NaN where there is nothing to score; tensors are float64 on the CPU.

    Attributes:
        means: scores of the whole data set by name, such as "miou".
        classes: (K,) scores per class by name, such as "iou"; their means have the same name in ``means``, but that of
            "iou" is "miou".
        categories: scores per Cityscapes category: {"flat": {"category_iou": ...}, ...}; empty for other classes.
        crops: mean IoU by crop factor of the distance-based evaluation; empty if it was not asked for.
        confusion: (K, K) int64, pixels of each true class (row) by predicted class (column).
        images: scores of the single images in the order of the data set; empty if batches had no names.
    """

    means: dict[str, Tensor]
    classes: dict[str, Tensor]
    categories: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    crops: dict[str, Tensor] = field(default_factory=dict)
    confusion: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    images: list[ImageScores] = field(default_factory=list)


class Evaluation(nn.Module):
    """The metrics of a stage, updated and computed together.

    Args:
        class_names: K names of the classes.
        ignore_index: label of void pixels.
        boundary_tolerances: distances of the boundary F-score in pixels, or fractions of the diagonal below 1.
        everything: also Boundary IoU, the distance-based crops, the boundary map's own score, and for the Cityscapes
            classes what the official script prints. False for IoU, accuracy and boundary F-score alone.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        ignore_index: int,
        boundary_tolerances: Sequence[float],
        everything: bool = False,
    ) -> None:
        super().__init__()
        num_classes = len(class_names)
        self.boundary_names = [f"boundary_f1_{t:g}{'px' if t >= 1 else 'diag'}" for t in boundary_tolerances]
        self.ignore_index = ignore_index
        is_cityscapes = everything and tuple(class_names) == CITYSCAPES.names and ignore_index == 255
        metrics: dict[str, Metric] = {
            "scores": CityscapesScores() if is_cityscapes else SegmentationScores(num_classes, ignore_index),
            "boundary": BoundaryFScore(num_classes, boundary_tolerances, ignore_index, average="none"),
        }
        if everything:
            metrics["boundary_iou"] = BoundaryIoU(num_classes, ignore_index=ignore_index, average="none")
            metrics["crops"] = DistanceCropIoU(num_classes, ignore_index=ignore_index)
            metrics["ods"] = BoundaryODS(boundary_tolerances[0], ignore_index=ignore_index)
        self.metrics = nn.ModuleDict(metrics)
        self._images: list[tuple[str, dict[str, float]]] = []

    def update(self, preds: Tensor, boundary_prob: Tensor | None, batch: Mapping[str, Any]) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) integer, predicted classes.
            boundary_prob: (B, 1, H, W) in [0, 1], None without a shape stream.
            batch: "mask" (B, H, W) with the labels; "boundary" (B, 1, H, W) in {0, 1}, without which
                ``boundary_prob`` is not scored; "instances" (B, H, W) where there are instance maps; and "name", B
                strings, without which the images are not scored one by one.
        """
        labels = batch["mask"]
        for _, metric in self._metrics():
            if isinstance(metric, BoundaryODS):
                if boundary_prob is not None and "boundary" in batch:
                    # Void pixels are labelled 0 in the boundary map, which they should not be judged by.
                    ignored = (labels == self.ignore_index).unsqueeze(1)
                    metric.update(boundary_prob, batch["boundary"].masked_fill(ignored, 255))
            elif isinstance(metric, CityscapesScores):
                metric.update(preds, labels, batch.get("instances"))
            else:
                metric.update(preds, labels)
        if "name" in batch:
            self._images += zip(batch["name"], self._latest_images(), strict=True)

    def compute(self) -> Scores:
        """Scores of all batches of all processes so far."""
        computed = {name: metric.compute() for name, metric in self._metrics() if metric.update_called}
        overall = computed["scores"]
        classes = {"iou": overall["iou"], **dict(zip(self.boundary_names, computed["boundary"].cpu(), strict=True))}
        means = {"miou": overall["miou"], "accuracy": overall["accuracy"]}
        confusion: Any = self.metrics["scores"].confusion
        result = Scores(means, classes, confusion=confusion, images=_of_all_processes(self._images))
        if "boundary_iou" in computed:
            classes["boundary_iou"] = computed["boundary_iou"].cpu()
            means.update({name: overall[name] for name in ("mean_accuracy", "fwiou")})
            self._add_official(result, overall)
            factors: Any = self.metrics["crops"].factors
            result.crops = {f"{f:g}": score for f, score in zip(factors, computed["crops"], strict=True)}
        means.update({name: values.nanmean() for name, values in classes.items() if name not in ("iou", "iiou")})
        if "ods" in computed:
            means["boundary_ods"] = computed["ods"]["ods"]
        return result

    def reset(self) -> None:
        """Forget all batches."""
        self._images = []
        for _, metric in self._metrics():
            metric.reset()

    def state(self) -> dict[str, Tensor]:
        """Sums of all metrics by "metric.state"; those of several evaluations add up to that of all their images."""
        return {
            f"{name}.{key}": getattr(metric, key).clone()
            for name, metric in self._metrics()
            for key in metric.metric_state
        }

    def compute_from(self, state: Mapping[str, Tensor]) -> Scores:
        """Scores of sums as `state` gives them, or of their sums over images."""
        for name, metric in self._metrics():
            metric.reset()
            for key in metric.metric_state:
                setattr(metric, key, state[f"{name}.{key}"].to(getattr(metric, key)))
            # The boundary map's own score is there only if there was a boundary map.
            metric._update_count = int(name != "ods" or bool(state["ods.counts"].any()))
        return self.compute()

    def _metrics(self) -> list[tuple[str, Metric]]:
        return list(self.metrics.items())  # type: ignore[arg-type]

    def _latest_images(self) -> list[dict[str, float]]:
        """Scores of each image of the latest batch, from what its metrics have measured anyway.

        Reading them does not wait for the device: the boundary F-score has just fetched the label maps.
        """
        scores: Any = self.metrics["scores"]
        boundary: Any = self.metrics["boundary"]
        miou = class_iou(scores.image_confusion).nanmean(-1).tolist()
        fscores = boundary.image_scores.nanmean(-1).tolist()
        names = [*self.boundary_names, "miou"]
        return [dict(zip(names, [*f, iou], strict=True)) for f, iou in zip(fscores, miou, strict=True)]

    def _add_official(self, result: Scores, overall: Mapping[str, Tensor]) -> None:
        if "category_iou" not in overall:
            return
        keys = [key for key in ("category_iou", "category_iiou") if key in overall]
        result.categories = {name: {key: overall[key][index] for key in keys} for index, name in enumerate(CATEGORIES)}
        result.means["category_miou"] = overall["category_miou"]
        if "iiou" in overall:
            result.classes["iiou"] = overall["iiou"]
            result.means.update({"iiou": overall["miiou"], "category_miiou": overall["category_miiou"]})


def _of_all_processes(images: list[tuple[str, dict[str, float]]]) -> list[ImageScores]:
    """Images of all processes in the order of the data set, which `EvalSampler` has dealt out one by one."""
    dealt = [images]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        dealt = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(dealt, images)
    found = [
        ImageScores(rank + len(dealt) * place, name, values)
        for rank, own in enumerate(dealt)
        for place, (name, values) in enumerate(own)
    ]
    return sorted(found, key=lambda image: image.index)
