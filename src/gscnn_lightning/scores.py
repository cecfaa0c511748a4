"""What an evaluation measured, as plain data: the one type of score from the metrics to tables, files and reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gscnn_lightning.score_names import loosest_boundary_score

RELIABILITY_REGIONS = ("all", "boundary")
"""Which pixels calibration is measured on, all labelled ones or the band of the true boundaries."""


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
    """Scores in [0, 1], NaN where there is nothing to score; of calibration errors less is better, of all else more.

    Attributes:
        means: scores of the whole data set by name, such as "miou".
        classes: K scores, one per class, by name, such as "iou"; `score_names.mean_name` has the name of their mean.
        class_names: K names; empty where they are not known.
        categories: scores per Cityscapes category: {"flat": {"category_iou": ...}, ...}; empty for other classes.
        crops: mean IoU by crop factor of the distance-based evaluation; empty if it was not asked for.
        confusion: (K, K) int64, pixels of each true class (row) by predicted class (column); None if not counted.
        reliability: by region, "all" or "boundary": the number of "pixels", the mean "confidence" and the "accuracy" in
            each bin of confidence, of one width from 0 to 1; empty if it was not asked for.
        images: scores of the single images in the order of the data set; empty if batches had no names.
        epoch: epoch of the training that was evaluated, counted from 1; None outside of a training.
        training_seconds: time of the training that led to them, validations included; None if it was not measured.
    """

    means: dict[str, float]
    classes: dict[str, list[float]]
    class_names: tuple[str, ...] = ()
    categories: dict[str, dict[str, float]] = field(default_factory=dict)
    crops: dict[str, float] = field(default_factory=dict)
    confusion: npt.NDArray[np.int64] | None = None
    reliability: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    images: list[ImageScores] = field(default_factory=list)
    epoch: int | None = None
    training_seconds: float | None = None

    def rows(self) -> list[tuple[str, dict[str, float]]]:
        """Name and every score of each class.

        Raises:
            ValueError: there are not as many names as scores.
        """
        columns = zip(*self.classes.values(), strict=True) if self.classes else ((),) * len(self.class_names)
        return [
            (name, dict(zip(self.classes, values, strict=True)))
            for name, values in zip(self.class_names, columns, strict=True)
        ]

    def of_class(self, name: str) -> dict[str, float]:
        """Every score of a class; empty if the class is not known.

        Args:
            name: of the class.
        """
        return dict(self.rows()).get(name, {})


def worst_images(images: list[ImageScores]) -> list[ImageScores]:
    """Images by boundary F at the largest tolerance, the worst first; those without any boundary are left out.

    Args:
        images: all with the same scores.
    """
    key = loosest_boundary_score(images[0].values) if images else None
    if key is None:
        return []
    return sorted((image for image in images if math.isfinite(image.values[key])), key=lambda image: image.values[key])


def most_changed_images(
    pairs: Sequence[tuple[Sequence[ImageScores], Sequence[ImageScores]]], name: str, number: int
) -> list[tuple[int, float]]:
    """Images that gain most from one side to another, then those that lose most, with their changes.

    Frames of a drive follow each other and resemble each other, so that those found are some way apart.

    Args:
        pairs: scores of all images by both sides, a pair per seed; changes are means over these.
        name: the score.
        number: how many, half of them gains; fewer where fewer images change.

    Returns:
        Places in the data set and changes, from -1 to 1.

    Raises:
        ValueError: sides of a pair have different numbers of images.

    Example:
        >>> sides = [0.5, 0.5, 0.5], [0.5, 1.0, 0.0]
        >>> before, after = ([ImageScores(i, "", {"miou": v}) for i, v in enumerate(side)] for side in sides)
        >>> most_changed_images([(before, after)], "miou", 4)
        [(1, 0.5), (2, -0.5)]
    """
    changes: dict[int, float] = {}
    for before, after in pairs:
        for one, other in zip(before, after, strict=True):
            changes[one.index] = changes.get(one.index, 0) + (other.values[name] - one.values[name]) / len(pairs)
    apart = max(1, len(changes) // (2 * number))
    found: list[tuple[int, float]] = []
    for sign in (1, -1):
        ranked = sorted((i for i in changes if sign * changes[i] > 0), key=lambda i: -sign * changes[i])
        for _ in range(number // 2):
            place = next((i for i in ranked if all(abs(i - other) >= apart for other, _ in found)), None)
            if place is not None:
                found.append((place, changes[place]))
    return found
