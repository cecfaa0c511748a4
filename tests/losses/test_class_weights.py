"""Weights of classes beside those of each image."""

import math

import pytest
import torch
from tests.losses import oracle

from gscnn_lightning.errors import SettingError
from gscnn_lightning.losses import (
    GSCNNLoss,
    ImageWeightedCrossEntropy,
    balanced_class_weights,
    image_class_weights,
    image_weighted_cross_entropy,
)
from gscnn_lightning.models import GSCNNOutput


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (2, 9, 11), generator=generator)
    labels[:, :2] = 255
    return torch.randn(2, 3, 9, 11, generator=generator, dtype=torch.float64), labels


def test_balanced_weights_are_enets():
    shares = [0.6, 0.399, 0.001, 0.0]
    raw = [1 / math.log(1.02 + share) for share in shares]
    mean = sum(w * s for w, s in zip(raw, shares, strict=True))
    weights = balanced_class_weights(shares)
    assert weights == pytest.approx([*(w / mean for w in raw[:3]), 1.0])
    assert sum(w * s for w, s in zip(weights, shares, strict=True)) == pytest.approx(1)
    assert balanced_class_weights([600, 399, 1, 0]) == pytest.approx(weights)


def test_class_weights_multiply_those_of_the_image():
    logits, labels = made()
    weights = torch.tensor([0.5, 1.0, 7.0])
    both = image_class_weights(labels, 3, dtype=torch.float64) * weights
    nll = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    expected = [
        sum(float(both[b, c] * nll[b][labels[b] == c].sum()) for c in range(3))
        / sum(float(both[b, c] * (labels[b] == c).sum()) for c in range(3))
        for b in range(2)
    ]
    found = image_weighted_cross_entropy(logits, labels, class_weights=weights)
    assert float(found) == pytest.approx(sum(expected) / 2, rel=1e-12)
    module = ImageWeightedCrossEntropy(class_weights=[0.5, 1.0, 7.0])
    assert float(module(logits, labels)) == pytest.approx(float(found))
    scaled = image_weighted_cross_entropy(logits, labels, class_weights=3 * weights)
    assert float(scaled) == pytest.approx(float(found))


def test_no_weights_change_no_bit():
    logits, labels = made()
    plain = image_weighted_cross_entropy(logits, labels)
    assert float(plain) == pytest.approx(oracle.image_weighted_ce(logits.numpy(), labels.numpy()), rel=1e-12)
    assert torch.equal(plain, image_weighted_cross_entropy(logits, labels, class_weights=torch.ones(3)))
    assert "class_weights" not in GSCNNLoss(3).state_dict()


def test_the_joint_loss_has_them_in_segmentation_and_attention():
    logits, labels = made()
    output = GSCNNOutput(logits.float(), torch.full((2, 1, 9, 11), 5.0), ())
    weights = [0.5, 1.0, 7.0]
    terms = GSCNNLoss(3, class_weights=weights)(output, labels, torch.zeros(2, 1, 9, 11))
    expected = float(image_weighted_cross_entropy(logits, labels, class_weights=torch.tensor(weights)))
    assert float(terms["segmentation"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["attention"]) == pytest.approx(expected, rel=1e-5)


def test_an_image_of_classes_without_weight_counts_nothing():
    logits, labels = made()
    labels[1] = 2
    loss = image_weighted_cross_entropy(logits, labels, class_weights=torch.tensor([1.0, 1.0, 0.0]))
    alone = image_weighted_cross_entropy(logits[:1], labels[:1], class_weights=torch.tensor([1.0, 1.0, 0.0]))
    assert float(loss) == pytest.approx(float(alone))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "class_weights has 2 weights for 3 classes: give one for each"),
        ([1.0, -2.0, 1.0], r"that of class 1 is -2\.0: give a finite number of 0 or more for every class"),
        ([1.0, 1.0, math.nan], "that of class 2 is nan"),
        ([1.0, math.inf, 1.0], "that of class 1 is inf"),
        ([], r"class_weights is \[\]: give a finite number"),
        ("high", "class_weights is 'high': give a finite number"),
        ([0.0, 0.0, 0.0], "class_weights are all 0, which trains nothing"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, message):
    with pytest.raises(SettingError, match=message):
        GSCNNLoss(3, class_weights=weights)


@pytest.mark.parametrize("shares", [[], [0.0, 0.0], [0.5, -0.5], [math.nan, 1.0]])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(SettingError, match="give the share of every class, 0 or more, and one above 0"):
        balanced_class_weights(shares)


def test_wrong_number_of_weights_in_the_function():
    logits, labels = made()
    with pytest.raises(ValueError, match=r"class_weights has shape \(2,\): give one weight for each of 3 classes"):
        image_weighted_cross_entropy(logits, labels, class_weights=torch.ones(2))
