"""Label errors: where a network contradicts the labels so confidently that these may be wrong; NumPy and OpenCV."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.classes import IGNORE_INDEX

Kind = Literal["class", "boundary"]
KINDS: tuple[Kind, ...] = ("class", "boundary")

Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]

# A label boundary may be displaced by as many pixels; what a network is off by anyway is less than the latter.
_REACH, _LEAST_SHIFT = 10, 3
# Pixels of a region, and of a labelled segment and its outline, that say anything.
_LEAST_REGION, _LEAST_SEGMENT, _LEAST_OUTLINE = 30, 100, 15
# A margin of 12 is one part in 160,000; what is beyond is for no network to know.
_MOST_MARGIN = 12.0
# Of a single pixel beside a boundary, certainty counts for less than that there are many of them.
_MOST_ODDS = 2.0
# Distance to the predicted outline from which on it is another one's.
_FAR = 5.0
# Suspects of a frame and kind that are kept.
_MOST = 20


@dataclass(frozen=True)
class Suspect:
    """A place where labels may be wrong.

    Attributes:
        frame: place of the frame in the order of `SuspectSearch.add`.
        kind: "class": a region that is labelled as one class and predicted as another. "boundary": a labelled segment
            whose outline the predicted one parallels at a distance of 3 to 10 pixels.
        label: class that the labels name.
        predicted: class that the network names; of a displaced segment, what it most often borders on where it moves.
        box: (x0, y0, x1, y1) in pixels, the latter two beyond the last.
        region: (y1 - y0, x1 - x0), the pixels in doubt within the box.
        margin: log p(predicted) - log p(label) in nats, 12 at most: its first quartile over the region for "class", its
            mean for "boundary".
        score: how suspicious, as a multiple of the strongest suspect of this kind in a usual frame.
        shift: (dx, dy) in pixels that brings the labelled segment to the predicted outline; (0, 0) for "class".
    """

    frame: int
    kind: Kind
    label: int
    predicted: int
    box: Box
    region: Mask
    margin: float
    score: float
    shift: tuple[int, int] = (0, 0)

    @property
    def pixels(self) -> int:
        """Number of pixels in doubt."""
        return int(self.region.sum())


@dataclass(frozen=True)
class SuspectFrame:
    """A frame with the scores of its strongest suspects, 0 where it has none.

    Attributes:
        frame: its place in the order of `SuspectSearch.add`.
        class_score: of the strongest one of kind "class".
        boundary_score: of the strongest one of kind "boundary".
        suspects: number of all.
    """

    frame: int
    class_score: float
    boundary_score: float
    suspects: int

    @property
    def score(self) -> float:
        """Sum of both."""
        return self.class_score + self.boundary_score


class SuspectSearch:
    r"""Finds and ranks places where labels may be wrong, frame by frame.

    **Class errors.** Regions are connected pixels of one labelled and one other predicted class. Those that lie along
    the label's own boundary with the predicted class, within 10 pixels, are left out: a network's boundaries are off by
    a few pixels anyway. With the margin :math:`m = \log p(\text{predicted}) - \log p(\text{label})`, the score is

    .. math::
        Q_{1/4}(m) \cdot \sqrt{\text{pixels}} \cdot -\log r(\text{label}, \text{predicted})

    with the margin's first quartile, which part of a region cannot make up for, and the share r of the label's pixels
    that lie in such regions in all *other* frames: what the network mistakes often, it says little about. That is the
    idea of confident learning, for regions in place of images.

    **Displaced boundaries.** The outline of each labelled segment is moved by less than 10 pixels to where it matches
    the predicted outline of its class best (chamfer matching: mean distance C, of each pixel 5 at most). From 3 pixels
    on that is a suspect, with the score

    .. math::
        \frac{C_0 - C}{C + 1/2} \cdot \sqrt{n} \cdot \sqrt{e / \sqrt{n}}

    for n outline pixels, the distance :math:`C_0` before, and the evidence e: the sum of log odds, each 2 at most, that
    the segment gains by this shift, or loses by the opposite one if that is less. Where boundaries are merely vague,
    both shifts gain. A boundary that is off on one side alone is found if that is most of the outline.

    Source of the idea: Northcutt et al., Confident learning, JAIR 2021; of the matching: Barrow et al., Parametric
    correspondence and chamfer matching, IJCAI 1977.

    Args:
        num_classes: number of classes K, >= 1.
        ignore_index: label of void pixels, which are never suspect.

    Example:
        >>> labels = np.zeros((40, 60), np.uint8)
        >>> labels[10:20, 10:20] = 2  # the network is sure that it is 1
        >>> truth = np.where(labels == 2, 1, labels)
        >>> log_prob = np.log(np.where(np.arange(3)[:, None, None] == truth, 0.98, 0.01))
        >>> search = SuspectSearch(num_classes=3)
        >>> search.add(log_prob, labels)
        >>> (found,) = search.suspects()
        >>> found.kind, found.label, found.predicted, found.box, found.pixels
        ('class', 2, 1, (10, 10, 20, 20), 100)
    """

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}; give the number of classes, at least 1")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self._found: list[list[_Found]] = []
        self._mistaken: list[npt.NDArray[np.int64]] = []
        self._labelled: list[npt.NDArray[np.int64]] = []

    def add(self, log_prob: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> None:
        """Look at a frame.

        Args:
            log_prob: (K, H, W) logarithms of the probabilities, natural; logits after a log-softmax.
            labels: (H, W) integer, 0 ... K-1 or void.

        Raises:
            ValueError: shapes, data types or labels do not fit.
        """
        labels = self._checked(log_prob, labels)
        frame = _Frame(log_prob, labels, self.num_classes)
        regions, mistaken = _class_errors(frame)
        self._found.append([*regions, *_displaced(frame)])
        self._mistaken.append(mistaken)
        self._labelled.append(np.bincount(labels[frame.labelled], minlength=self.num_classes).astype(np.int64))

    def suspects(self) -> list[Suspect]:
        """Suspects of all frames, those of kind "class" first, each kind by score; 20 of a frame and kind at most."""
        mistaken = np.sum(self._mistaken, axis=0, dtype=np.int64) if self._found else np.zeros((0, 0), np.int64)
        labelled = np.sum(self._labelled, axis=0, dtype=np.int64)
        ranked: list[Suspect] = []
        for kind in KINDS:
            of_kind: list[Suspect] = []
            for frame, found in enumerate(self._found):
                if kind == "class":
                    share = (mistaken - self._mistaken[frame] + 1) / (
                        (labelled - self._labelled[frame])[:, None] + self.num_classes
                    )
                    surprise = -np.log(np.minimum(share, 1))
                suspects = [
                    one.suspect(frame, surprise[one.label, one.predicted] if kind == "class" else 1.0)
                    for one in found
                    if one.kind == kind
                ]
                of_kind += _without_repetition(sorted((s for s in suspects if s.score > 0), key=_by_score))
            usual = _usual(of_kind)
            ranked += sorted((replace(s, score=s.score / usual) for s in of_kind), key=_by_score)
        return ranked

    def _checked(self, log_prob: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Labels with -1 for void."""
        if log_prob.ndim != 3 or len(log_prob) != self.num_classes or log_prob.shape[1:] != labels.shape:
            raise ValueError(
                f"log_prob has shape {log_prob.shape} and labels {labels.shape}; give (K, H, W) and (H, W), "
                f"for {self.num_classes} classes"
            )
        if log_prob.size and log_prob.max() > 1e-3:
            raise ValueError(f"log_prob is up to {log_prob.max():g}; give logarithms, logits after a log-softmax")
        if labels.dtype.kind not in "iu":
            raise ValueError(f"labels have data type {labels.dtype}; give integer class labels")
        signed = np.where(labels == self.ignore_index, -1, labels.astype(np.int32))
        if signed.size and not -1 <= signed.min() <= signed.max() < self.num_classes:
            wrong = labels[(signed < -1) | (signed >= self.num_classes)].flat[0]
            raise ValueError(f"labels contain {wrong}; with {self.num_classes} classes they are 0 to K-1 or void")
        return signed


def rank_frames(suspects: Sequence[Suspect]) -> list[SuspectFrame]:
    """Frames that have suspects, the most suspicious first.

    Args:
        suspects: as `SuspectSearch.suspects` gives them.
    """
    by_frame: dict[int, list[Suspect]] = {}
    for suspect in suspects:
        by_frame.setdefault(suspect.frame, []).append(suspect)
    frames = []
    for frame, own in by_frame.items():
        best = {kind: max((s.score for s in own if s.kind == kind), default=0.0) for kind in KINDS}
        frames.append(SuspectFrame(frame, best["class"], best["boundary"], len(own)))
    return sorted(frames, key=lambda one: (-one.score, one.frame))


class _Frame:
    """What both searches need of a frame.

    Args:
        log_prob: (K, H, W).
        labels: (H, W) int32, -1 for void.
        num_classes: K.
    """

    def __init__(self, log_prob: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], num_classes: int) -> None:
        self.labels, self.num_classes = labels, num_classes
        self.log_prob = log_prob.astype(np.float32, copy=False)
        self.labelled = labels >= 0
        self.preds = self.log_prob.argmax(0).astype(np.int32)
        self.best = self.log_prob.max(0)
        own = np.take_along_axis(self.log_prob, np.maximum(labels, 0)[None].astype(np.int64), 0)[0]
        self.margin = np.minimum(self.best - own, _MOST_MARGIN)
        self._second: npt.NDArray[np.float32] | None = None

    def odds(self, name: int) -> npt.NDArray[np.float32]:
        """Log odds of a class against the best other one, limited; 0 on void pixels."""
        if self._second is None:
            others = self.log_prob.copy()
            np.put_along_axis(others, self.preds[None].astype(np.int64), -np.inf, 0)
            self._second = others.max(0)
        other = np.where(self.preds == name, self._second, self.best)
        odds = np.clip(self.log_prob[name] - other, -_MOST_ODDS, _MOST_ODDS)
        return np.where(self.labelled, odds, 0).astype(np.float32)


@dataclass(frozen=True)
class _Found:
    """A suspect before it is ranked; its region as the lengths of runs, as there may be very many of them."""

    kind: Kind
    label: int
    predicted: int
    box: Box
    runs: npt.NDArray[np.int32]
    margin: float
    weight: float
    shift: tuple[int, int] = (0, 0)

    def suspect(self, frame: int, surprise: float) -> Suspect:
        x0, y0, x1, y1 = self.box
        values = np.arange(len(self.runs)) % 2 == 1
        region = np.repeat(values, self.runs).reshape(y1 - y0, x1 - x0)
        score = float(self.weight * surprise)
        return Suspect(frame, self.kind, self.label, self.predicted, self.box, region, self.margin, score, self.shift)


def _runs(region: Mask) -> npt.NDArray[np.int32]:
    """Lengths of the runs of a mask, row after row, the first of False.

    Example:
        >>> _runs(np.array([[True, True, False], [False, False, True]])).tolist()
        [0, 2, 3, 1]
    """
    flat = np.concatenate([[False], region.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [region.size]])).astype(np.int32)


def _class_errors(frame: _Frame) -> tuple[list[_Found], npt.NDArray[np.int64]]:
    """The strongest regions of a frame, and the pixels of all by true (row) and predicted class."""
    number = frame.num_classes
    wrong = frame.labelled & (frame.preds != frame.labels)
    pairs = np.where(wrong, frame.labels * number + frame.preds, -1)
    sizes = np.bincount(pairs[wrong], minlength=number * number)
    mistaken = np.zeros((number, number), np.int64)
    found: list[_Found] = []
    near: dict[int, npt.NDArray[np.float32] | None] = {}
    for pair in np.flatnonzero(sizes >= _LEAST_REGION).tolist():
        label, predicted = divmod(pair, number)
        if predicted not in near:
            near[predicted] = _distance_to(frame.labels == predicted)
        for box, region in _components(pairs == pair, _LEAST_REGION):
            x0, y0, x1, y1 = box
            away = near[predicted]
            if away is not None:
                distances = away[y0:y1, x0:x1][region]
                if distances.min() < 2 and np.quantile(distances, 0.9) <= _REACH:
                    continue  # a boundary between the two, somewhat off
            mistaken[label, predicted] += int(region.sum())
            margin = float(np.quantile(frame.margin[y0:y1, x0:x1][region], 0.25))
            weight = margin * float(np.sqrt(region.sum()))
            found.append(_Found("class", label, predicted, box, _runs(region), margin, weight))
    # Ten times as many as can be reported: which pairs are a surprise is known later.
    return sorted(found, key=lambda one: -one.weight)[: 10 * _MOST], mistaken


def _components(mask: Mask, least: int) -> list[tuple[Box, Mask]]:
    """Connected pixels, at least so many, with the box around them; corners connect."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    part = np.ascontiguousarray(mask[y : y + height, x : x + width]).view(np.uint8)
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    result = []
    for index in range(1, count):
        left, top, across, down, area = (int(value) for value in stats[index])
        if area >= least:
            own = numbers[top : top + down, left : left + across] == index
            result.append(((x + left, y + top, x + left + across, y + top + down), own))
    return result


def _distance_to(mask: Mask) -> npt.NDArray[np.float32] | None:
    """Distance of every pixel to a mask; None if it is empty."""
    if not mask.any():
        return None
    return cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 5).astype(np.float32, copy=False)


def _displaced(frame: _Frame) -> list[_Found]:
    """Labelled segments whose outlines fit the predicted ones better elsewhere."""
    found: list[_Found] = []
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for label in np.unique(frame.labels[frame.labelled]).tolist():
        own = frame.labels == label
        inside = frame.preds == label
        if not inside.any() or inside.all():
            continue
        # Of a labelled pixel, the distance to the predicted outline, where pixels inside have half a pixel to it.
        to_outside, to_inside = _distance_to(~inside), _distance_to(inside)
        assert to_outside is not None
        assert to_inside is not None
        distance = np.minimum(np.where(inside, np.abs(to_outside - 1), to_inside), _FAR).astype(np.float32)
        beside = cv2.dilate((frame.labelled & ~own).view(np.uint8), cross) > 0
        cost = np.pad(distance, _REACH, mode="edge")
        odds = np.pad(frame.odds(label), _REACH)
        for box, segment in _components(own, _LEAST_SEGMENT):
            x0, y0, x1, y1 = box
            outline = segment & beside[y0:y1, x0:x1]
            if outline.sum() >= _LEAST_OUTLINE:
                around = np.s_[y0 : y1 + 2 * _REACH, x0 : x1 + 2 * _REACH]
                moved = _best_shift(segment, outline, cost[around], odds[around])
                if moved is not None:
                    found.append(_moved(frame, label, box, segment, *moved))
    return sorted(found, key=lambda one: -one.weight)[: 2 * _MOST]


def _best_shift(
    segment: Mask, outline: Mask, cost: npt.NDArray[np.float32], odds: npt.NDArray[np.float32]
) -> tuple[tuple[int, int], float] | None:
    """The shift of a segment at which its outline fits best, and its score; None if that is where it is."""
    number = float(outline.sum())
    costs = cv2.matchTemplate(cost, outline.astype(np.float32), cv2.TM_CCORR) / number
    y, x = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1]
    length = np.hypot(x, y)
    best = int(np.argmin(np.where(length <= _REACH, costs, np.inf)))
    dx, dy = int(x.flat[best]), int(y.flat[best])
    if not _LEAST_SHIFT <= length.flat[best] < _REACH:
        return None
    gains = cv2.matchTemplate(odds, segment.astype(np.float32), cv2.TM_CCORR)
    here, there, opposite = (float(gains[_REACH + sign * dy, _REACH + sign * dx]) for sign in (0, 1, -1))
    evidence = min(there - here, here - opposite)
    before, after = float(costs[_REACH, _REACH]), max(0.0, float(costs.flat[best]))
    score = (before - after) / (after + 0.5) * np.sqrt(number) * np.sqrt(max(0.0, evidence) / np.sqrt(number))
    return ((dx, dy), float(score)) if score > 0 else None


def _moved(frame: _Frame, label: int, box: Box, segment: Mask, shift: tuple[int, int], score: float) -> _Found:
    """A displaced segment with the pixels that its shift takes and leaves."""
    (x0, y0, x1, y1), (dx, dy), (height, width) = box, shift, frame.labels.shape
    left, top = max(0, x0 + min(0, dx)), max(0, y0 + min(0, dy))
    right, bottom = min(width, x1 + max(0, dx)), min(height, y1 + max(0, dy))
    around = np.pad(segment, _REACH)
    rows, columns = _REACH - y0 + np.arange(top, bottom), _REACH - x0 + np.arange(left, right)
    old = around[np.ix_(rows, columns)]
    new = around[np.ix_(rows - dy, columns - dx)]
    here = np.s_[top:bottom, left:right]
    region = (old ^ new) & frame.labelled[here]
    others = np.where(old, frame.preds[here], frame.labels[here])[region]
    counts = np.bincount(others[others != label], minlength=frame.num_classes)
    predicted = int(counts.argmax()) if counts.any() else label
    margin = float(frame.margin[here][region].mean()) if region.any() else 0.0
    return _Found("boundary", label, predicted, (left, top, right, bottom), _runs(region), margin, score, shift)


def _by_score(suspect: Suspect) -> tuple[float, int, Box]:
    return -suspect.score, suspect.frame, suspect.box


def _usual(suspects: Sequence[Suspect]) -> float:
    """Median of the strongest score of each frame that has one; 1 if none has."""
    strongest: dict[int, float] = {}
    for suspect in suspects:
        strongest[suspect.frame] = max(strongest.get(suspect.frame, 0.0), suspect.score)
    return float(np.median(list(strongest.values()))) if strongest else 1.0


def _without_repetition(suspects: Sequence[Suspect]) -> list[Suspect]:
    """Suspects of one frame and kind, the strongest first, without those that are one of the stronger ones again."""
    kept: list[Suspect] = []
    for suspect in suspects:
        if len(kept) == _MOST:
            break
        if not any(_is_same(one, suspect) for one in kept):
            kept.append(suspect)
    return kept


def _is_same(one: Suspect, other: Suspect) -> bool:
    """Whether two suspects of a frame come from one error.

    A region of wrong class is often predicted as several classes, which then touch. A boundary is that of two segments.
    """
    if one.kind == "class":
        return one.label == other.label and _overlap(one, other, gap=3) > 0
    near = np.hypot(one.shift[0] - other.shift[0], one.shift[1] - other.shift[1]) < 4.5
    return bool(near) and _overlap(one, other) > 0.2 * min(one.pixels, other.pixels)


def _overlap(one: Suspect, other: Suspect, gap: int = 0) -> int:
    """Pixels of another region within a chessboard distance of one."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = one.box, other.box
    x0, y0, x1, y1 = max(ax0 - gap, bx0), max(ay0 - gap, by0), min(ax1 + gap, bx1), min(ay1 + gap, by1)
    if x0 >= x1 or y0 >= y1:
        return 0
    grown = np.pad(one.region, gap).view(np.uint8)
    if gap:
        grown = cv2.dilate(grown, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8))
    rows, columns = np.s_[y0 - ay0 + gap : y1 - ay0 + gap], np.s_[x0 - ax0 + gap : x1 - ax0 + gap]
    return int((grown[rows, columns] & other.region[y0 - by0 : y1 - by0, x0 - bx0 : x1 - bx0].view(np.uint8)).sum())
