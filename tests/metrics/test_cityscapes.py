"""Against the official evaluation script, on real label and instance maps."""

import cv2
import numpy as np
import pytest
import torch
from tests.metrics.maps import perturbed, train_ids

from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_TRAIN_ID_TO_ID
from gscnn_lightning.metrics import CityscapesScores
from gscnn_lightning.metrics.cityscapes import CATEGORIES


@pytest.fixture(scope="module")
def frames(cityscapes_root):
    """(file of the labels, predicted train ids, true train ids, instances) of the four frames."""
    rng = np.random.default_rng(0)
    result = []
    for path in sorted(cityscapes_root.glob("gtFine/*/*/*_labelIds.png")):
        labels = train_ids(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        instances = cv2.imread(str(path).replace("labelIds", "instanceIds"), cv2.IMREAD_UNCHANGED)
        preds = perturbed(labels, rng, reach=6.0)
        # Errors within a category and across, so that no score is trivial.
        preds[:, 700:900] = np.where(preds[:, 700:900] == 13, 14, preds[:, 700:900])
        preds[:, 1500:1600] = np.where(preds[:, 1500:1600] == 11, 13, preds[:, 1500:1600])
        result.append((path, preds, labels, instances.astype(np.int32)))
    assert len(result) == 4
    return result


@pytest.fixture
def official(monkeypatch):
    module = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    if not hasattr(np, "in1d"):
        monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # NumPy has dropped the name that the script uses
    monkeypatch.setattr(module.args, "quiet", True)
    monkeypatch.setattr(module.args, "JSONOutput", False)
    return module


def tensors(*maps):
    return [torch.from_numpy(m)[None] for m in maps]


def expected_from(scores, names):
    return np.array([scores[name] for name in names])


def test_equals_the_official_script(frames, official, tmp_path):
    to_id = np.array([CITYSCAPES_TRAIN_ID_TO_ID[i] for i in range(19)], np.uint8)
    metric, predictions = CityscapesScores(), []
    for path, preds, labels, instances in frames:
        metric.update(*tensors(preds, labels, instances))
        predictions.append(str(tmp_path / f"{path.stem}.png"))
        cv2.imwrite(predictions[-1], to_id[preds])
    theirs = official.evaluateImgLists(predictions, [str(frame[0]) for frame in frames], official.args)
    ours = {name: value.numpy() for name, value in metric.compute().items()}
    for key, name, order in (
        ("iou", "classScores", CITYSCAPES.names),
        ("iiou", "classInstScores", CITYSCAPES.names),
        ("category_iou", "categoryScores", CATEGORIES),
        ("category_iiou", "categoryInstScores", CATEGORIES),
    ):
        np.testing.assert_allclose(ours[key], expected_from(theirs[name], order), rtol=0, atol=1e-9, err_msg=key)
    for key, name in (
        ("miou", "averageScoreClasses"),
        ("miiou", "averageScoreInstClasses"),
        ("category_miou", "averageScoreCategories"),
        ("category_miiou", "averageScoreInstCategories"),
    ):
        assert ours[key] == pytest.approx(theirs[name], abs=1e-9)
    assert 0.2 < ours["miiou"] < ours["miou"] < 0.95


def test_any_split_and_merge_give_the_same_bits(frames):
    stacked = [torch.from_numpy(np.stack(maps)) for maps in zip(*(frame[1:] for frame in frames), strict=True)]
    whole, first, second = CityscapesScores(), CityscapesScores(), CityscapesScores()
    whole.update(*stacked)
    first.update(*(m[:1] for m in stacked))
    second.update(*(m[1:] for m in stacked))
    first.merge_state(second)
    for name, value in whole.compute().items():
        assert value.nan_to_num(9).equal(first.compute()[name].nan_to_num(9)), name


def test_without_instances_there_is_no_iiou(frames):
    metric = CityscapesScores()
    metric.update(*tensors(*frames[0][1:3]))
    assert "iiou" not in metric.compute()
    metric.update(*tensors(*frames[0][1:]))
    with pytest.raises(ValueError, match="1 of 2 images"):
        metric.compute()
    with pytest.raises(ValueError, match="instances has shape"):
        metric.update(*tensors(*frames[0][1:3]), torch.zeros(1, 2, 2))


def test_small_instances_weigh_as_much_as_large_ones():
    """Two cars, of 1 and of 9 pixels, the small one missed."""
    target, instances = torch.full((1, 1, 10), 13), torch.full((1, 1, 10), 26000)
    instances[..., 0] = 26001
    preds = target.clone()
    preds[..., 0] = 0
    metric = CityscapesScores()
    metric.update(preds, target, instances)
    result = metric.compute()
    assert result["iou"][13] == 0.9
    assert result["iiou"][13].item() == pytest.approx(0.5, abs=1e-12)
    assert result["category_iiou"][6].item() == pytest.approx(0.5, abs=1e-12)
    assert result["iiou"][0].isnan()
