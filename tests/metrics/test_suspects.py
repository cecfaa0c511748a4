"""Label errors that were put into made frames have to come first."""

import numpy as np
import pytest

from gscnn_lightning.metrics.suspects import SuspectSearch, rank_frames

CLASSES, HEIGHT, WIDTH = 5, 80, 120
ROAD, SKY, CAR, TREE, HEDGE = range(CLASSES)


def scene(seed):
    """Sky above road, a car on the road and a tree and a hedge before the sky."""
    rng = np.random.default_rng(seed)
    labels = np.full((HEIGHT, WIDTH), SKY, np.uint8)
    labels[40:] = ROAD
    x, y = rng.integers(5, 40), rng.integers(46, 56)
    labels[y : y + 18, x : x + 30] = CAR
    x = rng.integers(50, 60)
    labels[15:40, x : x + 20] = TREE
    labels[20:40, x + 25 : x + 45] = HEDGE
    return labels


def predicted(truth, seed, sure=6.0):
    """What a network says of a scene: sure of most, with noise, and every hedge a tree."""
    rng = np.random.default_rng(seed)
    seen = np.where(truth == HEDGE, TREE, truth)
    logits = rng.normal(size=(CLASSES, *truth.shape)) + sure * (np.arange(CLASSES)[:, None, None] == seen)
    return logits - np.log(np.exp(logits).sum(0))


def search(changes=lambda frame, labels: labels, frames=6):
    found = SuspectSearch(CLASSES)
    for frame in range(frames):
        truth = scene(frame)
        found.add(predicted(truth, 100 + frame), changes(frame, truth.copy()))
    return found


def of_kind(suspects, kind):
    return [suspect for suspect in suspects if suspect.kind == kind]


def test_a_swapped_class_comes_first_and_what_the_network_always_mistakes_after_it():
    def swap(frame, labels):
        if frame == 3:
            labels[labels == CAR] = SKY
        return labels

    suspects = search(swap).suspects()
    first, *others = of_kind(suspects, "class")
    assert (first.frame, first.label, first.predicted) == (3, SKY, CAR)
    assert first.pixels == pytest.approx(18 * 30, abs=10)
    x0, y0, x1, y1 = first.box
    assert (scene(3)[y0:y1, x0:x1][first.region] == CAR).all()
    assert first.shift == (0, 0)
    assert 2 < first.margin < 12
    # A hedge is as large, and the network as sure; but it says so in every frame.
    assert {(s.label, s.predicted) for s in others} == {(HEDGE, TREE)}
    assert len(others) == 6
    assert first.score > 2 * others[0].score
    assert np.median([s.score for s in others]) == pytest.approx(1, abs=0.1), "a usual frame's"


def test_a_segment_that_merges_with_another_of_its_wrong_class_is_one_suspect():
    def merge(frame, labels):
        if frame == 1:
            labels[labels == CAR] = ROAD
        return labels

    first = of_kind(search(merge).suspects(), "class")[0]
    assert (first.frame, first.label, first.predicted) == (1, ROAD, CAR)


def shifted(labels, name, dx, dy):
    new = np.where(labels == name, ROAD, labels)
    rows, columns = np.nonzero(labels == name)
    new[rows + dy, columns + dx] = name
    return new.astype(np.uint8)


@pytest.mark.parametrize(("dx", "dy"), [(5, 0), (-3, 4), (0, 6)])
def test_a_displaced_segment_comes_first_with_the_way_back(dx, dy):
    suspects = search(lambda frame, labels: shifted(labels, CAR, dx, dy) if frame == 4 else labels).suspects()
    first = of_kind(suspects, "boundary")[0]
    assert (first.frame, first.label, first.predicted) == (4, CAR, ROAD)
    assert np.abs(np.subtract(first.shift, (-dx, -dy))).max() <= 1
    truth, wrong = scene(4), shifted(scene(4), CAR, dx, dy)
    x0, y0, x1, y1 = first.box
    region = np.zeros(truth.shape, bool)
    region[y0:y1, x0:x1] = first.region
    assert ((truth != wrong) & region).sum() > 0.9 * (truth != wrong).sum()
    assert not [s for s in of_kind(suspects, "class") if s.frame == 4 and s.label != HEDGE], "nor is it a class error"
    assert rank_frames(suspects)[0].frame == 4


def test_boundaries_that_are_off_by_little_or_on_both_sides_are_no_suspects():
    def little(frame, labels):
        return shifted(labels, CAR, 1, 1) if frame == 2 else labels

    assert of_kind(search(little).suspects(), "boundary") == []

    def grown(frame, labels):
        if frame == 2:
            rows, columns = np.nonzero(labels == CAR)
            labels[rows.min() - 4 : rows.max() + 5, columns.min() - 4 : columns.max() + 5] = CAR
        return labels

    assert of_kind(search(grown).suspects(), "boundary") == [], "no shift makes it better"


def test_void_is_never_suspect_and_what_is_not_sure_counts_little():
    def void(frame, labels):
        labels[labels == CAR] = 255
        labels[(labels == TREE) | (labels == HEDGE)] = 255
        return labels

    assert search(void).suspects() == []
    found = SuspectSearch(CLASSES)
    for frame, sure in enumerate((6.0, 6.0, 2.5)):
        labels = scene(frame)
        labels[labels == CAR] = SKY if frame else CAR
        found.add(predicted(scene(frame), frame, sure), labels)
    cars = [s for s in of_kind(found.suspects(), "class") if s.predicted == CAR]
    assert cars[0].frame == 1
    assert all(s.score < cars[0].score / 2 for s in cars[1:])


def test_frames_are_ranked_by_their_strongest_suspects():
    def both(frame, labels):
        return (
            shifted(labels, CAR, 5, 0) if frame == 0 else np.where(labels == CAR, SKY, labels) if frame == 5 else labels
        )

    suspects = search(both).suspects()
    frames = rank_frames(suspects)
    assert {frame.frame for frame in frames[:2]} == {0, 5}
    for one in frames:
        own = [s for s in suspects if s.frame == one.frame]
        assert one.suspects == len(own)
        assert one.class_score == max(s.score for s in of_kind(own, "class"))
        assert one.score == one.class_score + one.boundary_score
    assert rank_frames([]) == []
    assert SuspectSearch(3).suspects() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((4, 5), int)}, r"log_prob has shape \(2, 4, 4\) and labels \(4, 5\)"),
        ({"labels": np.zeros((4, 4))}, "labels have data type float64"),
        ({"labels": np.full((4, 4), 2)}, "labels contain 2; with 2 classes"),
        ({"log_prob": np.ones((2, 4, 4))}, "log_prob is up to 1; give logarithms"),
    ],
)
def test_what_cannot_be_is_said(change, message):
    given = {"log_prob": np.log(np.full((2, 4, 4), 0.5)), "labels": np.zeros((4, 4), np.uint8)}
    with pytest.raises(ValueError, match=message):
        SuspectSearch(2).add(**(given | change))
    with pytest.raises(ValueError, match="num_classes is 0"):
        SuspectSearch(0)
