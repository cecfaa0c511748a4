"""The printed table of scores: what a dash means."""

import math

import pytest
from rich.console import Console

from gscnn_lightning.scores import Scores
from gscnn_lightning.scoring.tables import absences, score_table

NAMES = ("road", "sky", "train")


def made(iou, boundary):
    return Scores({"miou": 0.5}, {"iou": iou, "boundary_f1_3px": boundary}, NAMES)


@pytest.mark.parametrize(
    ("iou", "boundary", "expected"),
    [
        ([0.5, 0.4, 0.3], [0.5, 0.4, 0.3], []),
        (
            [0.5, 0.4, math.nan],
            [0.5, 0.4, math.nan],
            ["-: train is neither in the labels nor predicted, so in no mean"],
        ),
        (
            [0.5, 0.4, 0.3],
            [math.nan, math.nan, 0.2],
            ["-: road, sky are without a boundary in labels and predictions, so in no mean of boundary scores"],
        ),
    ],
)
def test_a_dash_is_explained(iou, boundary, expected):
    scores = made(iou, boundary)
    assert absences(scores) == expected
    console = Console(width=120)
    with console.capture() as printed:
        console.print(score_table(scores, "scores"))
    text = " ".join(printed.get().split())
    assert all(line in text for line in expected)
    assert ("-:" in text) == bool(expected)


def test_many_classes_are_not_all_named():
    names = tuple(f"c{i}" for i in range(12))
    scores = Scores({}, {"iou": [math.nan] * 12}, names)
    assert absences(scores) == [
        "-: c0, c1, c2, c3, c4, c5, c6, c7 and 4 more are neither in the labels nor predicted, so in no mean"
    ]
