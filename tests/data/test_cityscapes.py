import cv2
import numpy as np
import pytest

from gscnn_lightning.data import CityscapesDataModule
from gscnn_lightning.data.classes import CITYSCAPES_ID_TO_TRAIN_ID
from gscnn_lightning.errors import DataError

IDS = np.array([*range(34), 255, 255], np.uint8).reshape(4, 9)
"""Every official id; -1 (license plate) is 255 in an 8-bit file."""


def write(root, split, frames, nested=False, annotation="labelIds", labels=IDS):
    """A tiny Cityscapes split with the official names."""
    images = root / ("leftImg8bit_trainvaltest/leftImg8bit" if nested else "leftImg8bit")
    masks = root / ("gtFine_trainvaltest/gtFine" if nested else "gtFine")
    for frame in frames:
        city = frame.split("_")[0]
        (images / split / city).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(images / split / city / f"{frame}_leftImg8bit.png"), np.zeros((*labels.shape, 3), np.uint8))
        if annotation:
            (masks / split / city).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(masks / split / city / f"{frame}_gtFine_{annotation}.png"), labels)
            cv2.imwrite(str(masks / split / city / f"{frame}_gtFine_instanceIds.png"), labels.astype(np.uint16) * 1000)


FRAMES = ("aachen_000000_000019", "bochum_000001_000019")


def dataset(root, split, stage, **kwargs):
    data = CityscapesDataModule(root, num_workers=0, **kwargs)
    data.setup(stage)
    return data.datasets[split]


def test_real_frames(cityscapes_root):
    train = dataset(cityscapes_root, "train", "fit", crop_size=(512, 512))
    val = dataset(cityscapes_root, "val", "validate")
    assert [len(train), len(val)] == [2, 2]
    assert [train.source.name(i) for i in range(2)] == [f"aachen/aachen_00000{i}_000019" for i in range(2)]
    assert train[0, 0]["image"].shape == (3, 512, 512)
    sample = val[1]
    assert sample["name"] == "aachen/aachen_000003_000019"
    assert sample["image"].shape == (3, 1024, 2048)
    folder = cityscapes_root / "gtFine" / "val" / "aachen"
    raw = cv2.imread(str(folder / "aachen_000003_000019_gtFine_labelIds.png"), cv2.IMREAD_UNCHANGED)
    expected = np.full(raw.shape, 255, np.uint8)
    for raw_id, train_id in CITYSCAPES_ID_TO_TRAIN_ID.items():
        expected[raw == raw_id] = train_id
    assert np.array_equal(sample["mask"].numpy(), expected)
    assert sample["mask"].unique().tolist()[:3] == [0, 1, 2]


@pytest.mark.parametrize("nested", [False, True])
def test_all_ids_become_train_ids(tmp_path, nested):
    write(tmp_path, "val", FRAMES, nested)
    val = dataset(tmp_path, "val", "validate")
    assert [val[i]["name"] for i in range(2)] == ["aachen/aachen_000000_000019", "bochum/bochum_000001_000019"]
    # Cordts et al.: 19 of 34 ids are evaluated, counted in the order of their ids.
    void = 255
    expected = [void] * 7 + [0, 1, void, void, 2, 3, 4, void, void, void, 5, void, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    expected += [void, void, 16, 17, 18, void, void]
    assert val[0]["mask"].flatten().tolist() == expected


def test_root_from_the_environment(tmp_path, monkeypatch):
    write(tmp_path, "val", FRAMES)
    monkeypatch.setenv("CITYSCAPES_DATASET", str(tmp_path))
    assert len(dataset(None, "val", "validate")) == 2


def test_train_ids_are_accepted(tmp_path):
    labels = np.array([[0, 1, 18, 255]], np.uint8)
    write(tmp_path, "val", FRAMES, annotation="labelTrainIds", labels=labels)
    assert dataset(tmp_path, "val", "validate")[0]["mask"].tolist() == labels.tolist()


def test_label_ids_are_preferred(tmp_path):
    write(tmp_path, "val", FRAMES, annotation="labelTrainIds", labels=np.zeros((4, 9), np.uint8))
    write(tmp_path, "val", FRAMES)
    assert dataset(tmp_path, "val", "validate")[0]["mask"][0, 7] == 0
    assert dataset(tmp_path, "val", "validate")[0]["mask"][0, 0] == 255


@pytest.mark.parametrize(("annotation", "value"), [("labelIds", 34), ("labelIds", 200), ("labelTrainIds", 19)])
def test_unknown_ids(tmp_path, annotation, value):
    write(tmp_path, "val", FRAMES, annotation=annotation, labels=np.full((4, 9), value, np.uint8))
    with pytest.raises(DataError, match=rf"{annotation}\.png \(sample 1\) .* does not define: {value} \(36 pixels\)"):
        dataset(tmp_path, "val", "validate")[1]


def test_test_runs_on_val_and_prediction_on_test_images(tmp_path):
    write(tmp_path, "val", FRAMES)
    assert dataset(tmp_path, "test", "test")[0]["name"] == "aachen/aachen_000000_000019"
    assert "mask" in dataset(tmp_path, "predict", "predict")[0]
    write(tmp_path, "test", ["berlin_000000_000019"], annotation=None)
    predict = dataset(tmp_path, "predict", "predict")
    assert predict[0]["name"] == "berlin/berlin_000000_000019"
    assert "mask" not in predict[0]
    assert len(dataset(tmp_path, "test", "test")) == 2


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)
    with pytest.raises(DataError, match="set the environment variable CITYSCAPES_DATASET"):
        dataset(None, "val", "validate")
    with pytest.raises(DataError, match=r"neither gtFine nor gtFine_trainvaltest/gtFine: unpack gtFine_train"):
        dataset(tmp_path, "val", "validate")


def test_missing_labels(tmp_path):
    write(tmp_path, "val", FRAMES)
    write(tmp_path, "val", ["bochum_000002_000019"], annotation=None)
    with pytest.raises(DataError, match=r"1 of 3 images in Cityscapes split val of .*bochum_000002_000019_leftImg8bit"):
        dataset(tmp_path, "val", "validate")


def test_split_without_files(tmp_path):
    write(tmp_path, "val", FRAMES)
    with pytest.raises(DataError, match="no images in Cityscapes split train"):
        dataset(tmp_path, "train", "fit")
