import numpy as np
import pytest
import torch

from gscnn_lightning.metrics import SegmentationScores


def test_reference_values(reference):
    """Counts of the published program: per pair and of all of them."""
    arrays = reference("metrics.npz")
    pairs = sorted({name.split("/")[0] for name in arrays if name.endswith("/hist")} - {"dataset"})
    assert len(pairs) == 7
    whole = SegmentationScores(19)
    for pair in [*pairs, "dataset"]:
        scores = SegmentationScores(19)
        if pair != "dataset":
            maps = [torch.from_numpy(arrays[f"{pair}/{what}"].astype(np.int64))[None] for what in ("pred", "label")]
            scores.update(*maps)
            whole.update(*maps)
        scores = whole if pair == "dataset" else scores
        result = scores.compute()
        np.testing.assert_array_equal(scores.confmat, arrays[f"{pair}/hist"])
        np.testing.assert_allclose(result["iou"], arrays[f"{pair}/iou"], rtol=0, atol=1e-12)
        summary = [result[name] for name in ("accuracy", "mean_accuracy", "miou", "fwiou")]
        expected = arrays[f"{pair}/summary"]
        if not result["accuracy"].isfinite():
            assert expected[3] == 0, "theirs counts nothing as zero, where everything else is NaN"
            expected[3] = np.nan
        np.testing.assert_allclose(summary, expected, rtol=0, atol=1e-12)


def test_nothing_labelled_is_nan():
    scores = SegmentationScores(3)
    scores.update(torch.zeros(1, 4, 4, dtype=torch.int64), torch.full((1, 4, 4), 255))
    result = scores.compute()
    assert all(result[name].isnan().all() for name in result)


def test_hand_count():
    scores = SegmentationScores(3)
    scores.update(torch.tensor([[[0, 0, 0, 1, 1]]]), torch.tensor([[[0, 0, 1, 1, 0]]]))
    result = scores.compute()
    assert result["class_accuracy"][:2].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert result["fwiou"].item() == pytest.approx((3 * 2 / 4 + 2 * 1 / 3) / 5)
