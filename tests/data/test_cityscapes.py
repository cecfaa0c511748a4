import cv2
import numpy as np
import pytest
import torch
from tests.data import made

from gscnn_lightning.classes import CITYSCAPES_ID_TO_TRAIN_ID
from gscnn_lightning.data import CITYSCAPES, CityscapesDataModule
from gscnn_lightning.data import cityscapes as cityscapes_module
from gscnn_lightning.data.cityscapes import VAL_CITIES
from gscnn_lightning.data.files import FileSource, Frame
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
    with pytest.raises(DataError, match=rf"{annotation}\.png \(sample 0\) .* does not define: {value} \(36 pixels\)"):
        dataset(tmp_path, "val", "validate")


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


def names(root, split, stage, **kwargs):
    source = dataset(root, split, stage, **kwargs).source
    return [source.name(i).split("/")[1].split("_")[0] for i in range(len(source))]


def test_trainval_joins_both(tmp_path):
    write(tmp_path, "train", FRAMES)
    write(tmp_path, "val", ["munster_000000_000019"])
    assert names(tmp_path, "train", "fit", train_split="trainval") == ["aachen", "bochum", "munster"]
    assert names(tmp_path, "val", "fit", train_split="trainval") == ["munster"]


def test_cross_validation_uses_every_city_once():
    cities = [city for group in VAL_CITIES for city in group]
    assert len(cities) == len(set(cities)) == 21
    assert VAL_CITIES[0] == ("frankfurt", "lindau", "munster")


def test_cross_validation_divides_by_city(tmp_path):
    write(tmp_path, "train", ["aachen_000000_000019", "bochum_000000_000019", "bochum_000001_000019"])
    write(tmp_path, "val", ["munster_000000_000019"])
    assert names(tmp_path, "train", "fit", cv_split=2) == ["aachen", "munster"]
    assert names(tmp_path, "val", "fit", cv_split=2) == ["bochum", "bochum"]
    assert names(tmp_path, "train", "fit") == ["aachen", "bochum", "bochum"]


@pytest.mark.parametrize("nested", [False, True])
def test_coarse_labels_and_train_extra(tmp_path, nested):
    frames = ["troisdorf_000000_000073", "troisdorf_000000_000074"]
    made.cityscapes(tmp_path, "train_extra", frames, annotation="gtCoarse", labels=IDS)
    made.cityscapes(tmp_path, "train", ["aachen_000000_000019"], annotation="gtCoarse")
    made.cityscapes(tmp_path, "val", ["munster_000000_000019"])
    if nested:
        outer = tmp_path / "leftImg8bit_trainextra/leftImg8bit"
        outer.mkdir(parents=True)
        (tmp_path / "leftImg8bit/train_extra").rename(outer / "train_extra")
        (tmp_path / "gtCoarse").rename(tmp_path / "inner")
        (tmp_path / "gtCoarse").mkdir()
        (tmp_path / "inner").rename(tmp_path / "gtCoarse/gtCoarse")
    extra = dataset(tmp_path, "train", "fit", train_split="train_extra", annotation="coarse")
    assert [extra.source.name(i) for i in range(2)] == [f"troisdorf/{frame}" for frame in frames]
    assert extra.source.load(0)[1][0, 7] == 0
    assert names(tmp_path, "val", "fit", train_split="train_extra", annotation="coarse") == ["munster"]
    coarse = dataset(tmp_path, "train", "fit", annotation="coarse").source
    assert coarse.frames[0].labels.name == "aachen_000000_000019_gtCoarse_labelIds.png"


def test_frames_known_to_be_bad_are_left_out(tmp_path):
    settings = {"train_split": "train_extra", "annotation": "coarse"}
    bad, missing, good = (f"troisdorf_000000_00007{i}" for i in (3, 4, 5))
    made.cityscapes(tmp_path, "train_extra", [bad, missing, good], annotation="gtCoarse")
    made.cityscapes(tmp_path, "val", ["munster_000000_000019"])
    folder = tmp_path / "leftImg8bit/train_extra/troisdorf"
    (folder / f"{bad}_leftImg8bit.png").write_bytes(b"")
    (folder / f"{missing}_leftImg8bit.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 label maps in .*000074_gtCoarse"):
        dataset(tmp_path, "train", "fit", **settings)
    train = dataset(tmp_path, "train", "fit", skip_frames=[bad, f"troisdorf/{missing}"], **settings)
    assert [train.source.name(i) for i in range(len(train))] == [f"troisdorf/{good}"]


def test_instances_of_real_frames(cityscapes_root):
    val = dataset(cityscapes_root, "val", "validate", instances=True)
    sample = val[0]
    file = val.source.frames[0].labels.name.replace("labelIds", "instanceIds")
    raw = cv2.imread(str(val.source.frames[0].labels.with_name(file)), cv2.IMREAD_UNCHANGED)
    assert sample["instances"].dtype == torch.int32
    assert np.array_equal(sample["instances"].numpy(), raw)
    cars = sample["instances"][sample["mask"] == 13]  # class id 26
    assert set((cars[cars >= 1000] // 1000).tolist()) == {26}
    assert "instances" not in dataset(cityscapes_root, "val", "validate")[0]
    assert torch.equal(dataset(cityscapes_root, "test", "test")[0]["instances"], sample["instances"])
    assert "instances" not in dataset(cityscapes_root, "test", "test", instances=False)[0]


def test_instances_are_used_where_they_are(tmp_path):
    made.cityscapes(tmp_path, "train", ["ulm_000000_000019"])
    made.cityscapes(tmp_path, "val", ["munster_000000_000019", "munster_000001_000019"])
    assert "instances" not in dataset(tmp_path, "test", "test")[0]
    first, second = (frame.labels for frame in dataset(tmp_path, "test", "test").source.frames)
    first.with_name(first.name.replace("labelIds", "instanceIds")).write_bytes(first.read_bytes())
    with pytest.raises(DataError, match=r"munster_000001_000019_gtFine_instanceIds\.png is missing"):
        dataset(tmp_path, "test", "test")
    second.with_name(second.name.replace("labelIds", "instanceIds")).write_bytes(second.read_bytes())
    assert dataset(tmp_path, "test", "test")[0]["instances"].dtype == torch.int32


def ids_by_name():
    """Raw id of each of the 19 evaluated classes, in the order of the train ids (Cordts et al., table of classes)."""
    evaluated = {
        "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
        "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
        "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
    }  # fmt: skip
    return list(evaluated.values())


@pytest.fixture
def real_label_maps(cityscapes_root):
    beside = cityscapes_root.parent / "cityscapes-labels"
    files = [*cityscapes_root.rglob("*_gtFine_labelIds.png"), *beside.glob("*_gtFine_labelIds.png")]
    assert len(files) >= 4
    return files


def histogram(files):
    """Pixels per train id, void last, as the data module reads them."""
    source = FileSource([Frame(file.name, file, file) for file in files], cityscapes_module.FROM_ID)
    counts = sum(np.bincount(source.load_labels(i).ravel(), minlength=256) for i in range(len(files)))
    return [*counts[:19].tolist(), int(counts[255])]


def raw_histogram(files):
    return sum(np.bincount(cv2.imread(str(f), cv2.IMREAD_UNCHANGED).ravel(), minlength=256) for f in files)


def test_histogram_of_real_label_maps(real_label_maps):
    raw = raw_histogram(real_label_maps)
    expected = [int(raw[i]) for i in ids_by_name()]
    assert histogram(real_label_maps) == [*expected, int(raw.sum() - sum(expected))]


def test_histogram_by_the_official_tables(real_label_maps):
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    raw = raw_histogram(real_label_maps)
    expected = np.zeros(256, int)
    for label in labels:
        expected[label.trainId % 256] += raw[label.id % 256]
    assert histogram(real_label_maps) == [*expected[:19].tolist(), int(expected[255])]


def test_table_is_the_official_one():
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    ours = {raw: train_id % 256 for raw, train_id in CITYSCAPES_ID_TO_TRAIN_ID.items()}
    assert ours == {label.id: label.trainId % 256 for label in labels}
    evaluated = sorted((label for label in labels if 0 <= label.trainId < 255), key=lambda label: label.trainId)
    assert CITYSCAPES.names == tuple(label.name for label in evaluated)
    assert CITYSCAPES.colors == tuple(label.color for label in evaluated)
