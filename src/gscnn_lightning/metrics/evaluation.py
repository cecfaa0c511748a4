"""All scores of a data set from one pass: what validation logs, what test reports, what a comparison resamples."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed
from torch import Tensor, nn
from torchmetrics import Metric

from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.metrics import (
    BoundaryFScore,
    BoundaryIoU,
    BoundaryODS,
    CalibrationError,
    CityscapesScores,
    DistanceCropIoU,
    SegmentationScores,
)
from gscnn_lightning.metrics.cityscapes import CATEGORIES
from gscnn_lightning.metrics.label_maps import check_distances, class_iou
from gscnn_lightning.score_names import (
    BOUNDARY_IOU,
    BOUNDARY_ODS,
    ECE,
    ECE_BOUNDARY,
    IIOU,
    IOU,
    MIOU,
    boundary_score,
    mean_name,
)
from gscnn_lightning.scores import RELIABILITY_REGIONS, ImageScores, Scores


class Evaluation(nn.Module):
    """The metrics of a stage, updated and computed together.

    Args:
        class_names: K names of the classes.
        ignore_index: label of void pixels.
        boundary_tolerances: distances of the boundary F-score in pixels, or fractions of the diagonal below 1.
        everything: also Boundary IoU, the distance-based crops, the boundary map's own score, the calibration error,
            and for the Cityscapes classes what the official script prints. False for IoU, accuracy and boundary F-score
            alone.
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
        self.class_names = tuple(class_names)
        check_distances("boundary_tolerances", boundary_tolerances)
        self.boundary_names = [boundary_score(tolerance) for tolerance in boundary_tolerances]
        self.ignore_index = ignore_index
        is_cityscapes = everything and tuple(class_names) == CITYSCAPES.names and ignore_index == 255
        metrics: dict[str, Metric] = {
            "scores": CityscapesScores() if is_cityscapes else SegmentationScores(num_classes, ignore_index),
            "boundary": BoundaryFScore(num_classes, boundary_tolerances, ignore_index, average="none"),
        }
        if everything:
            metrics["boundary_iou"] = BoundaryIoU(num_classes, ignore_index=ignore_index, average="none")
            metrics["crops"] = DistanceCropIoU(num_classes, ignore_index=ignore_index)
            metrics["calibration"] = CalibrationError(ignore_index=ignore_index)
            metrics["ods"] = BoundaryODS(boundary_tolerances[0], ignore_index=ignore_index)
        self.metrics = nn.ModuleDict(metrics)
        self._images: list[tuple[str, dict[str, float]]] = []

    def update(
        self, preds: Tensor, boundary_prob: Tensor | None, batch: Mapping[str, Any], logits: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) integer, predicted classes.
            boundary_prob: (B, 1, H, W) in [0, 1], None without a shape stream.
            batch: "mask" (B, H, W) with the labels; "boundary" (B, 1, H, W) in {0, 1}, without which
                ``boundary_prob`` is not scored; "instances" (B, H, W) where there are instance maps; and "name", B
                strings, without which the images are not scored one by one.
            logits: (B, K, H, W), whose softmax are the probabilities of the classes; None leaves the calibration error
                out.

        Raises:
            ValueError: if something is missing, or shapes, data types or values are out of range.
        """
        if "mask" not in batch:
            raise ValueError(f"the batch has no 'mask', only {sorted(batch)}; give the labels (B, H, W)")
        labels = batch["mask"]
        if "name" in batch and len(batch["name"]) != len(preds):
            raise ValueError(f"{len(batch['name'])} names for {len(preds)} images; give one name per image")
        if "boundary" in batch and batch["boundary"].shape != (len(preds), 1, *preds.shape[1:]):
            raise ValueError(
                f"boundary has shape {tuple(batch['boundary'].shape)}, preds {tuple(preds.shape)}; give boundary maps "
                "(B, 1, H, W) of the same size"
            )
        for _, metric in self._metrics():
            if isinstance(metric, BoundaryODS):
                if boundary_prob is not None and "boundary" in batch:
                    # Void pixels are labelled 0 in the boundary map, which they should not be judged by.
                    ignored = (labels == self.ignore_index).unsqueeze(1)
                    metric.update(boundary_prob, batch["boundary"].masked_fill(ignored, 255))
            elif isinstance(metric, CalibrationError):
                # Image by image: the probabilities of a whole batch would be its largest tensor.
                for scores, truth in zip(() if logits is None else logits.split(1), labels.split(1), strict=False):
                    metric.update(scores.float().softmax(1), truth)
            elif isinstance(metric, CityscapesScores):
                metric.update(preds, labels, batch.get("instances"))
            else:
                metric.update(preds, labels)
        if "name" in batch:
            self._images += zip(batch["name"], self._latest_images(), strict=True)

    def compute(self) -> Scores:
        """Scores of all batches of all processes so far.

        Raises:
            ValueError: if there was none.
        """
        if not self.metrics["scores"].update_called:
            raise ValueError("no batch has been scored; call update first")
        computed = {name: metric.compute() for name, metric in self._metrics() if metric.update_called}
        overall = computed["scores"]
        classes = {IOU: overall[IOU], **dict(zip(self.boundary_names, computed["boundary"].cpu(), strict=True))}
        means = {MIOU: overall[MIOU], "accuracy": overall["accuracy"]}
        categories: dict[str, dict[str, float]] = {}
        crops: dict[str, float] = {}
        if "boundary_iou" in computed:
            classes[BOUNDARY_IOU] = computed["boundary_iou"].cpu()
            means.update({name: overall[name] for name in ("mean_accuracy", "fwiou")})
            if "category_iou" in overall:
                categories = self._add_official(classes, means, overall)
            factors: Any = self.metrics["crops"].factors
            crops = {f"{f:g}": float(score) for f, score in zip(factors, computed["crops"], strict=True)}
        means.update({mean_name(name): v.nanmean() for name, v in classes.items() if mean_name(name) not in means})
        if "ods" in computed:
            means[BOUNDARY_ODS] = computed["ods"]["ods"]
        reliability: dict[str, dict[str, list[float]]] = {}
        if "calibration" in computed:
            found = computed["calibration"]
            means.update({ECE: found["ece"], ECE_BOUNDARY: found["ece_boundary"]})
            parts = ("pixels", "confidence", "accuracy")
            reliability = {r: {p: found[p][i].tolist() for p in parts} for i, r in enumerate(RELIABILITY_REGIONS)}
        confusion: Any = self.metrics["scores"].confusion
        return Scores(
            means={name: float(value) for name, value in means.items()},
            classes={name: values.tolist() for name, values in classes.items()},
            class_names=self.class_names,
            categories=categories,
            crops=crops,
            confusion=confusion.numpy().astype("int64"),
            reliability=reliability,
            images=_of_all_processes(self._images),
        )

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
            # The boundary map's own score is there only if there was a boundary map, calibration if there were logits.
            optional = name in ("ods", "calibration")
            metric._update_count = int(not optional or bool(state[f"{name}.counts"].any()))
        return self.compute()

    @property
    def images(self) -> list[tuple[str, dict[str, float]]]:
        """Names and scores of the images of this process since the last `reset`."""
        return self._images

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
        names = [*self.boundary_names, MIOU]
        return [dict(zip(names, [*f, iou], strict=True)) for f, iou in zip(fscores, miou, strict=True)]

    def _add_official(
        self, classes: dict[str, Tensor], means: dict[str, Tensor], overall: Mapping[str, Tensor]
    ) -> dict[str, dict[str, float]]:
        """Add what the official Cityscapes script prints beside the IoU; scores by category."""
        means["category_miou"] = overall["category_miou"]
        if IIOU in overall:
            classes[IIOU] = overall[IIOU]
            means.update({IIOU: overall["miiou"], "category_miiou": overall["category_miiou"]})
        keys = [key for key in ("category_iou", "category_iiou") if key in overall]
        return {name: {key: float(overall[key][index]) for key in keys} for index, name in enumerate(CATEGORIES)}


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
