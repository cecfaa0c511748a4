import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data import made

from gscnn_lightning.data import CamVidDataModule, FolderDataModule
from gscnn_lightning.data.mask_classes import read_classes
from gscnn_lightning.errors import DataError

EXPECTED = np.array(made.raw_mask(), np.int64)
EXPECTED[np.isin(EXPECTED, (7, 8))] = 1


def module(root, stage="fit", **kwargs):
    data = FolderDataModule(**{"root": root, "classes": "classes.yaml", "batch_size": 1, "num_workers": 0, **kwargs})
    data.setup(stage)
    return data


def masks(data, split="train"):
    dataset = data.datasets[split]
    return [dataset.source.load(index)[1].astype(int) for index in range(len(dataset))]


def test_folders_of_splits(tmp_path):
    data = module(made.folder(tmp_path))
    assert data.num_classes == 3
    assert data.class_names == ("ground", "tree", "sky")
    assert data.class_colors[2] == (70, 130, 180)
    assert [data.datasets["train"].source.name(i) for i in range(3)] == ["f0", "f1", "f2"]
    for mask in masks(data) + masks(data, "val"):
        assert np.array_equal(mask, EXPECTED)
    sample = data.datasets["val"][1]
    assert np.array_equal(sample["image"].numpy(), made.picture(21).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["16-bit", "palette", "TIFF", "BMP"])
def test_masks_of_ids_in_other_formats(kind, tmp_path):
    made.folder(tmp_path)
    path = tmp_path / "masks/train/f1.png"
    expected = EXPECTED
    if kind == "palette":
        image = Image.fromarray(made.raw_mask(), mode="P")
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        image.save(path)
    elif kind == "16-bit":
        wide = made.raw_mask(dtype=np.uint16)
        wide[1, :4] = 300
        made.save(path, wide)
        expected = EXPECTED.copy()
        expected[1, :4] = 2
    else:
        path.unlink()
        made.save(path.with_suffix({"TIFF": ".tif", "BMP": ".bmp"}[kind]), made.raw_mask())
    assert np.array_equal(masks(module(tmp_path))[1], expected)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "palette"])
def test_masks_of_colours(kind, tmp_path):
    made.folder(tmp_path, made.COLOR_TABLE)
    indices = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) % 4
    palette = np.array([[128, 64, 128], [107, 142, 35], [1, 2, 3], [0, 0, 0]], np.uint8)
    for path in (tmp_path / "masks").rglob("*.png"):
        if kind == "palette":
            image = Image.fromarray(indices, mode="P")
            image.putpalette(palette.ravel().tolist())
        else:
            image = Image.fromarray(palette[indices]).convert(kind)
        image.save(path)
    expected = np.array([0, 1, 1, 255])[indices]
    assert np.array_equal(masks(module(tmp_path))[0], expected)


def test_other_names_and_endings(tmp_path):
    made.folder(tmp_path / "made")
    for split in ("train", "val"):
        for kind, ending in (("images", "_rgb"), ("masks", "_mask")):
            for path in (tmp_path / "made" / kind / split).iterdir():
                place = tmp_path / split / "city"
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / f"{path.stem}{ending}{path.suffix}")
    shutil.copy(tmp_path / "made/classes.yaml", tmp_path)
    names = {"images": "{split}", "masks": "{split}", "image_ending": "_rgb", "mask_ending": "_mask"}
    data = module(tmp_path, **names)
    assert [data.datasets["train"].source.name(i) for i in range(3)] == ["city/f0", "city/f1", "city/f2"]
    # Masks beside the images need no ending of the images.
    for path in list(tmp_path.glob("*/city/*_rgb.*")):
        path.rename(path.with_name(path.name.replace("_rgb", "")))
    for path in (tmp_path / "train/city").glob("*_rgb.*"):
        path.rename(path.with_name(path.name.replace("_rgb", "")))
    assert len(module(tmp_path, **{**names, "image_ending": ""}).datasets["train"]) == 3


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv"])
def test_lists(suffix, tmp_path):
    made.folder(tmp_path)
    comma = {"txt": " ", "csv": ",", "tsv": "\t"}[suffix]
    rows = [
        ("image", "mask"),
        *((f"images/train/f{i}.{'png' if i % 2 else 'jpg'}", f"masks/train/f{i}.png") for i in (2, 0)),
    ]
    for split in ("train", "val"):
        (tmp_path / f"{split}.{suffix}").write_text("\n".join(comma.join(row) for row in rows) + "\n\n")
    data = module(tmp_path, lists=f"{{split}}.{suffix}")
    source = data.datasets["train"].source
    assert [source.name(i) for i in range(len(source))] == ["images/train/f2", "images/train/f0"]
    assert np.array_equal(masks(data)[0], EXPECTED)


def test_names_stay_below_the_folder_of_predictions(tmp_path):
    made.folder(tmp_path / "data")
    made.save(tmp_path / "a b.png", made.picture())
    (tmp_path / "data/predict.csv").write_text(f"../a b.png\n{tmp_path}/data/images/val/f0.jpg\n")
    data = module(tmp_path / "data", stage="predict", lists="{split}.csv", lists_leave_root=True)
    source = data.datasets["predict"].source
    assert source.name(0) == "a b"
    assert not source.name(1).startswith("/")
    assert "mask" not in data.datasets["predict"][0]


@pytest.mark.parametrize(
    "entry", ["../secret.png", "ABSOLUTE", "linked.png", "folder/secret.png", "images/../../secret.png"]
)
def test_lists_stay_in_their_root_unless_told_otherwise(entry, tmp_path):
    root = tmp_path / "data"
    made.folder(root)
    made.save(tmp_path / "secret.png", made.picture())
    (root / "linked.png").symlink_to(tmp_path / "secret.png")
    (root / "folder").symlink_to(tmp_path)
    entry = entry.replace("ABSOLUTE", str(tmp_path / "secret.png"))
    (root / "predict.txt").write_text(f"images/val/f0.jpg\n{entry}\n")
    with pytest.raises(DataError) as error:
        module(root, stage="predict", lists="{split}.txt")
    message = str(error.value)
    assert "predict.txt, line 2: " in message
    assert f"is {tmp_path / 'secret.png'}, which is not in the root {root}" in message
    assert message.endswith("allow it with --data.lists_leave_root true")
    assert len(module(root, stage="predict", lists="{split}.txt", lists_leave_root=True).datasets["predict"]) == 2
    # A root that is a link itself, and a way around within it, leave nothing.
    (tmp_path / "link").symlink_to(root)
    (root / "predict.txt").write_text(f"images/train/../val/f0.jpg\n{root / 'images/val/f1.png'}\n")
    assert len(module(tmp_path / "link", stage="predict", lists="{split}.txt").datasets["predict"]) == 2


def test_splits_that_are_not_there(tmp_path):
    made.folder(tmp_path)
    for stage in ("test", "predict"):
        assert len(module(tmp_path, stage).datasets[stage]) == 2
    made.save(tmp_path / "images/predict/x.png", made.picture())
    sample = module(tmp_path, "predict").datasets["predict"][0]
    assert sample["name"] == "x"
    assert "mask" not in sample


def test_everything_else_can_be_void(tmp_path):
    made.folder(tmp_path, made.CLASS_TABLE.replace("[255]", "others").replace("values: [7, 8]", "values: [7]"))
    expected = np.where(EXPECTED == 1, np.where(made.raw_mask() == 7, 1, 255), EXPECTED)
    assert np.array_equal(masks(module(tmp_path))[0], expected)


def test_values_default_to_the_place_in_the_list(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("classes: [{name: a, color: [1, 2, 3]}, {name: b, color: [4, 5, 6]}]")
    table = read_classes(path).table
    assert table[:3].tolist() == [0, 1, 254]
    path.write_text("masks: colors\n" + path.read_text())
    table = read_classes(path).table
    assert (table[0x010203], table[0x040506], table[0]) == (0, 1, 254)


def test_camvid_as_folders_is_camvid(camvid_root):
    """The shipped class table and the module's own one say the same."""
    table = made.__file__.rpartition("tests")[0] + "configs/classes/camvid.yaml"
    data = FolderDataModule(camvid_root, table, images="{split}", masks="{split}annot", num_workers=0)
    known = CamVidDataModule(camvid_root, num_workers=0)
    assert (data.class_names, data.class_colors) == (known.class_names, known.class_colors)
    data.setup("validate")
    known.setup("validate")
    for index in range(0, 101, 25):
        ours, theirs = data.datasets["val"][index], known.datasets["val"][index]
        assert ours["name"] == theirs["name"]
        assert torch.equal(ours["mask"], theirs["mask"])
