"""Networks of other libraries, trained by loops of their own on real frames, measured by what they have written."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_ID_TO_TRAIN_ID, CITYSCAPES_TRAIN_ID_TO_ID
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.drawing.maps import colorize_labels
from gscnn_lightning.metrics.evaluation import Evaluation

STEPS = 120
SIZE = (1024, 512)
TO_TRAIN_ID = np.array([CITYSCAPES_ID_TO_TRAIN_ID.get(value, 255) for value in range(256)], np.uint8)
TO_ID = np.array([CITYSCAPES_TRAIN_ID_TO_ID.get(value, 0) for value in range(256)], np.uint8)


class TorchvisionNetwork(nn.Module):
    """FCN of torchvision on its ResNet-18; it wraps its logits."""

    def __init__(self):
        super().__init__()
        models = pytest.importorskip("torchvision").models
        trunk = models._utils.IntermediateLayerGetter(models.resnet18(weights=None), {"layer4": "out"})
        self.network = models.segmentation.FCN(trunk, models.segmentation.fcn.FCNHead(512, 19))

    def forward(self, image):
        return self.network(image)["out"]


def smp_network():
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.Unet("resnet18", encoder_weights=None, classes=19)


def read(path):
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None, path
    return found


@pytest.fixture(scope="module")
def frames(cityscapes_root):
    """Image and official labels of every real frame, by the frame's name."""
    found = {}
    for path in sorted((cityscapes_root / "leftImg8bit").rglob("*_leftImg8bit.png")):
        name = path.name.removesuffix("_leftImg8bit.png")
        folder = cityscapes_root / "gtFine" / path.relative_to(cityscapes_root / "leftImg8bit").parent
        found[name] = path, folder / f"{name}_gtFine_labelIds.png"
    return found


def logits_of(network, frames):
    """Train for a while on quarter frames, then predict whole ones, by nothing of this library."""
    torch.manual_seed(0)
    images = [torch.from_numpy(cv2.resize(read(image), SIZE)).permute(2, 0, 1) / 255 for image, _ in frames.values()]
    labels = [
        torch.from_numpy(TO_TRAIN_ID[cv2.resize(read(path), SIZE, interpolation=cv2.INTER_NEAREST)]).long()
        for _, path in frames.values()
    ]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    network.train()
    for step in range(STEPS):
        y, x = (int(torch.randint(size, ())) for size in (SIZE[1] - 256 + 1, SIZE[0] - 256 + 1))
        crop = (slice(y, y + 256), slice(x, x + 256))
        pair = [step % len(images), (step + 1) % len(images)]
        image = torch.stack([images[index][:, *crop] for index in pair])
        label = torch.stack([labels[index][crop] for index in pair])
        loss = F.cross_entropy(network(image), label, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        for name, image in zip(frames, images, strict=True):
            yield name, F.interpolate(network(image[None]), (1024, 2048), mode="bilinear")[0]


def published_boundary_iou(preds, truths):
    """As Cheng et al. define it: bands by eroding masks, background outside of the image; counts of all frames."""
    sums = np.zeros((19, 2))
    for pred, truth in zip(preds, truths, strict=True):
        width = max(1, round(0.02 * float(np.hypot(*pred.shape))))
        valid = truth != 255
        for k in range(19):
            bands = []
            for labels in (pred, truth):
                mask = np.pad(((labels == k) & valid).astype(np.uint8), 1)
                bands.append((mask - cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width))[1:-1, 1:-1] > 0)
            sums[k] += (bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()
    return sums[:, 0] / np.where(sums[:, 1], sums[:, 1], np.nan)


@pytest.mark.slow
@pytest.mark.parametrize("make", [TorchvisionNetwork, smp_network])
def test_foreign_predictions_have_the_scores_of_everybody(
    make, frames, cityscapes_root, official, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    truths = {name: TO_TRAIN_ID[read(path)] for name, (_, path) in frames.items()}
    instances = {
        name: read(str(path).replace("labelIds", "instanceIds")).astype(np.int64) for name, (_, path) in frames.items()
    }
    evaluation = Evaluation(CITYSCAPES.names, 255, [3, 5, 9, 12], everything=True)
    preds = {}
    for folder in ("ids", "trainids", "colors", "soft"):
        Path(folder).mkdir()
    for name, logits in logits_of(make(), frames):
        pred = logits.argmax(0).to(torch.uint8).numpy()
        preds[name] = pred
        cv2.imwrite(f"ids/{name}_pred.png", TO_ID[pred])
        cv2.imwrite(f"trainids/{name}.png", pred)
        cv2.imwrite(f"colors/{name}_color.png", colorize_labels(pred, CITYSCAPES.colors)[..., ::-1])
        np.save(f"soft/{name}.npy", logits.numpy())
        batch = {
            "mask": torch.from_numpy(truths[name])[None],
            "instances": torch.from_numpy(instances[name])[None],
        }
        evaluation.update(torch.from_numpy(pred)[None], None, batch, logits[None])
    ours = evaluation.compute()
    assert len(np.unique(np.stack(list(preds.values())))) > 3, "it has learnt something"
    scores = {}
    for folder in ("ids", "trainids", "colors", "soft"):
        place = ["--labels", str(cityscapes_root / "gtFine"), "--classes", "cityscapes", "--workers", "2"]
        tools(["score", folder, *place, "--out", f"out_{folder}"])
        scores[folder] = json.loads(Path(f"out_{folder}/scores_test.json").read_text())
    for name in ("ece", "ece_boundary"):
        assert scores["soft"]["means"].pop(name) == pytest.approx(ours.means[name], abs=1e-5)
    assert scores["ids"] == scores["trainids"] == scores["colors"] == scores["soft"]
    found = scores["ids"]
    for name, value in found["means"].items():
        assert value == pytest.approx(ours.means[name], abs=1e-12, nan_ok=True), name
    theirs = official.evaluateImgLists(
        [f"ids/{name}_pred.png" for name in frames], [str(path) for _, path in frames.values()], official.args
    )
    assert found["means"]["miou"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-9)
    assert found["means"]["category_miou"] == pytest.approx(theirs["averageScoreCategories"], abs=1e-9)
    expected = published_boundary_iou(preds.values(), truths.values())
    for k, (name, values) in enumerate(found["classes"].items()):
        if values["iou"] is not None:
            assert values["iou"] == pytest.approx(theirs["classScores"][name], abs=1e-9)
        if values["boundary_iou"] is not None:
            assert values["boundary_iou"] == pytest.approx(expected[k], abs=1e-9)
        if values.get("iiou") is not None:
            assert values["iiou"] == pytest.approx(theirs["classInstScores"][name], abs=1e-9)
