import hashlib
import shutil

import cv2
import numpy as np
import pytest

from gscnn_lightning.data import CamVidDataModule
from gscnn_lightning.errors import DataError


@pytest.fixture
def made(tmp_path):
    """Three tiny frames per split in the SegNet layout, PNG and JPEG mixed."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
        for i in range(3):
            suffix = "png" if i % 2 else "jpg"
            cv2.imwrite(str(tmp_path / split / f"f{i}.{suffix}"), np.full((12, 16, 3), (10, 100, 200), np.uint8))
            cv2.imwrite(str(tmp_path / f"{split}annot" / f"f{i}.png"), np.full((12, 16), (5, 11, 0)[i], np.uint8))
    return tmp_path


def module(root, **kwargs):
    return CamVidDataModule(root, num_workers=0, batch_size=2, **kwargs)


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in files}


def test_real_data_set(camvid_root):
    data = module(camvid_root)
    data.setup("fit")
    assert len(data.datasets["train"]) == 367
    assert len(data.datasets["val"]) == 101
    sample = data.datasets["val"][0]
    assert sample["name"] == "0016E5_07959"
    assert sample["image"].shape == (3, 360, 480)
    raw = cv2.imread(str(camvid_root / "valannot" / "0016E5_07959.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(sample["mask"].numpy(), np.where(raw == 11, 255, raw))
    shares = np.bincount(np.concatenate([data.datasets["train"][i]["mask"].flatten() for i in range(0, 367, 20)]))
    assert shares[3] / shares.sum() == pytest.approx(0.32, abs=0.05)  # road


def test_root_from_the_environment(made, monkeypatch):
    monkeypatch.setenv("GSCNN_CAMVID_ROOT", str(made))
    data = module(None)
    data.setup("validate")
    assert len(data.datasets["val"]) == 3


def test_colours_are_rgb_and_void_is_255(made):
    data = module(made)
    data.setup("fit")
    sample = data.datasets["val"][1]
    assert sample["name"] == "f1"
    assert sample["image"][:, 0, 0].tolist() == [200, 100, 10]
    assert (sample["mask"] == 255).all()
    assert (data.datasets["val"][0]["mask"] == 5).all()


def test_test_split_is_val_unless_there_is_a_test_folder(made):
    data = module(made)
    data.setup("test")
    assert data.datasets["test"].source.frames[0].image == made / "val" / "f0.jpg"
    shutil.copytree(made / "val", made / "test")
    shutil.copytree(made / "valannot", made / "testannot")
    for stage in ("test", "predict"):
        data = module(made)
        data.setup(stage)
        assert data.datasets[stage].source.frames[0].image == made / "test" / "f0.jpg"


def test_nothing_of_the_users_is_changed(made):
    before = digest(made)
    data = module(made, crop_size=(8, 8))
    data.setup()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        list(loader)
    assert digest(made) == before


def test_no_root(monkeypatch):
    monkeypatch.delenv("GSCNN_CAMVID_ROOT", raising=False)
    with pytest.raises(DataError, match=r"--data\.root FOLDER\) or set the environment variable GSCNN_CAMVID_ROOT"):
        module(None).setup("fit")


def test_missing_root_and_folder(made):
    with pytest.raises(DataError, match="nowhere does not exist"):
        module(made / "nowhere").setup("fit")
    shutil.rmtree(made / "trainannot")
    with pytest.raises(DataError, match=r"trainannot is missing: CamVid in the SegNet layout"):
        module(made).setup("fit")


def test_empty_split(made):
    for folder in ("train", "trainannot"):
        shutil.rmtree(made / folder)
        (made / folder).mkdir()
    with pytest.raises(DataError, match=r"no images in .*train and trainannot: check the path"):
        module(made).setup("fit")


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("trainannot/f1.png", r"1 of 3 images in .* have no label map, the first is .*train/f1\.png: add the missing"),
        ("train/f2.jpg", r"1 of 3 label maps in .* have no image, the first is .*trainannot/f2\.png: add the missing"),
    ],
)
def test_unpaired_files(made, removed, message):
    (made / removed).unlink()
    with pytest.raises(DataError, match=message):
        module(made).setup("fit")


def test_the_same_frame_twice(made):
    shutil.copy(made / "train" / "f1.png", made / "train" / "f1.jpeg")
    with pytest.raises(DataError, match=r"f1\.jpeg and f1\.png are the same frame twice: remove one"):
        module(made).setup("fit")


def test_sizes_that_differ(made):
    cv2.imwrite(str(made / "valannot" / "f2.png"), np.zeros((12, 15), np.uint8))
    with pytest.raises(DataError, match=r"valannot/f2\.png is 15x12 pixels but its image f2\.jpg is 16x12: resize"):
        module(made).setup("validate")


def test_not_an_image(made):
    (made / "val" / "f1.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"val/f1\.png is not a readable image .*: replace the file"):
        module(made).setup("validate")


def test_unknown_label_values(made):
    labels = np.zeros((12, 16), np.uint8)
    labels[0, :3], labels[1, 1] = 12, 77
    cv2.imwrite(str(made / "valannot" / "f1.png"), labels)
    data = module(made)
    data.setup("validate")
    message = r"valannot/f1\.png \(sample 1\) has label values that the data set does not define: 12, 77 \(4 pixels\)"
    with pytest.raises(DataError, match=message):
        list(data.val_dataloader())


def test_coloured_label_maps_are_refused(made):
    cv2.imwrite(str(made / "valannot" / "f0.png"), np.zeros((12, 16, 3), np.uint8))
    with pytest.raises(DataError, match=r"f0\.png has pixels of type RGB: .* with one channel .* are class ids"):
        module(made).setup("validate")


@pytest.mark.parametrize("file", ["val/f0.jpg", "val/f1.png", "valannot/f2.png"])
def test_truncated_files(made, file):
    rng = np.random.default_rng(0)
    path = made / file
    noise = rng.integers(0, 10, (12, 16) if "annot" in file else (12, 16, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    content = path.read_bytes()
    data = module(made)
    data.setup("validate")
    path.write_bytes(content[: len(content) - 20])
    message = rf"truncated after {len(content) - 20} bytes: copy it"
    with pytest.raises(DataError, match=rf"{file} \(sample \d\) is {message}"):
        list(data.val_dataloader())
    with pytest.raises(DataError, match=rf"{file} is {message}"):
        module(made).setup("validate")


def test_damaged_and_vanished_files(made):
    data = module(made)
    data.setup("validate")
    path = made / "val" / "f1.png"
    content = bytearray(path.read_bytes())
    content[30:-12] = bytes(len(content) - 42)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"val/f1\.png \(sample 1\) cannot be decoded as an image"):
        data.datasets["val"][1]
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*val/f1\.png \(sample 1\)"):
        data.datasets["val"][1]
