import shutil

import numpy as np
import pytest
from tests.data import made

from gscnn_lightning.data import CamVidDataModule, CityscapesDataModule, FolderDataModule, ScenesDataModule
from gscnn_lightning.data.check import check_data
from gscnn_lightning.errors import DataError


def folder(root):
    return FolderDataModule(root, "classes.yaml", num_workers=0, batch_size=1)


def test_counts_and_sizes(tmp_path):
    made.folder(tmp_path)
    made.save(tmp_path / "images/train/f1.png", made.picture(77, (6, 5)))
    made.save(tmp_path / "masks/train/f1.png", np.full((6, 5), 255, np.uint8))
    train, val = check_data(folder(tmp_path))  # test and predict would be val again
    assert (train.split, val.split) == ("train", "val")
    assert train.sizes == {(12, 16): 2, (6, 5): 1}
    assert train.pixels.tolist() == [2 * 88, 2 * 88, 0, 2 * 16 + 30]
    assert train.images.tolist() == [2, 2, 0, 3]
    assert (train.frames, train.void, train.unlabelled, train.problems) == (3, 1, 0, [])
    assert val.pixels.tolist() == [2 * 88, 2 * 88, 0, 2 * 16]


def test_every_problem_is_reported_in_the_words_of_the_training(tmp_path):
    made.folder(tmp_path)
    (tmp_path / "masks/train/f0.png").unlink()
    (tmp_path / "images/train/f1.png").write_bytes(b"nothing")
    made.save(tmp_path / "masks/train/f2.png", np.full((12, 16), 9, np.uint8))
    made.save(tmp_path / "masks/val/f1.png", made.raw_mask((3, 3)))
    train, val = check_data(folder(tmp_path))
    assert len(train.problems) == 3
    assert [
        word in problem for word, problem in zip(("no label map", "readable", "9 (192"), train.problems, strict=True)
    ]
    assert train.frames == 0
    assert len(val.problems) == 1
    for stage, report in (("fit", train), ("validate", val)):
        with pytest.raises(DataError) as error:
            folder(tmp_path).setup(stage)
        assert str(error.value) == report.problems[0]


def test_unusable_split_is_one_problem_and_the_others_are_read(tmp_path):
    made.folder(tmp_path)
    shutil.rmtree(tmp_path / "images/train")
    train, val = check_data(folder(tmp_path))
    assert "images/train is missing: create it" in train.problems[0]
    assert train.frames == 0
    assert (val.frames, val.problems) == (2, [])


def test_same_picture_in_two_splits_and_flat_pictures(tmp_path):
    made.folder(tmp_path)
    made.save(tmp_path / "images/val/f1.png", made.picture(31))  # train/f1
    made.save(tmp_path / "images/train/f1.png", made.picture(31))
    made.save(tmp_path / "images/val/f0.jpg", np.zeros((12, 16, 3), np.uint8))
    train, val = check_data(folder(tmp_path))
    assert train.problems == []
    assert val.problems == [
        "f0 (sample 0) is of one colour all over: replace it, or leave it out",
        "val f1 is the same picture as train f1: remove one of them",
    ]


@pytest.mark.parametrize("split", ["train", "val"])
def test_nothing_but_void_is_a_problem_and_trains_nothing(split, tmp_path):
    made.folder(tmp_path)
    for mask in (tmp_path / "masks" / split).iterdir():
        made.save(mask, np.full((12, 16), 255, np.uint8))
    (problem,) = (problem for report in check_data(folder(tmp_path)) for problem in report.problems)
    assert f"{split}: all {3 if split == 'train' else 2} label maps are void throughout" in problem
    with pytest.raises(DataError) as error:
        folder(tmp_path).setup("fit")
    assert str(error.value) == problem
    folder(tmp_path).setup("predict")  # which needs no labels
    # One labelled pixel suffices.
    labels = np.full((12, 16), 255, np.uint8)
    labels[5, 5] = 0
    made.save(tmp_path / "masks" / split / "f1.png", labels)
    assert [problem for report in check_data(folder(tmp_path)) for problem in report.problems] == []
    folder(tmp_path).setup("fit")


def test_classes_that_no_label_map_has_are_named(tmp_path):
    # Masks of 0 and 255 under a table that lists 255 as void and the class as 1.
    made.folder(tmp_path, made.CLASS_TABLE.replace("values: [7, 8]", "values: [7, 8, 9]"))
    made.save(tmp_path / "masks/train/f0.png", np.full((12, 16), 300, np.uint16))
    for mask in (tmp_path / "masks/val").iterdir():
        made.save(mask, np.where(made.raw_mask() == 0, np.uint8(0), np.uint8(255)))
    train, val = check_data(folder(tmp_path))
    assert [*train.problems, *val.problems] == []
    assert train.notes == []
    assert val.notes == ["no label map has tree, sky: they will have no scores, nor a part in the means"]
    for mask in (tmp_path / "masks/train").iterdir():
        made.save(mask, np.zeros((12, 16), np.uint8))
    train, _ = check_data(folder(tmp_path))
    assert train.notes == [
        "no label map has tree, sky: they cannot be learnt. Check their values in the class table against those in the "
        "maps"
    ]


def test_unlabelled_test_images(tmp_path):
    for split in ("train", "val"):
        made.cityscapes(tmp_path, split, [f"aachen_00000{len(split)}_000019"])
    made.cityscapes(tmp_path, "test", ["berlin_000000_000019", "berlin_000001_000019"], annotation=None)
    reports = {report.split: report for report in check_data(CityscapesDataModule(tmp_path))}
    assert set(reports) == {"train", "val", "predict"}
    assert reports["predict"].unlabelled == 2
    assert reports["predict"].pixels.sum() == 0


def test_progress_and_choice_of_splits(tmp_path):
    calls = []
    made.camvid(tmp_path)
    reports = check_data(CamVidDataModule(tmp_path), ["val"], lambda *call: calls.append(call))
    assert [report.split for report in reports] == ["val"]
    assert calls == [("val", 1, 3), ("val", 2, 3), ("val", 3, 3)]


def test_drawn_scenes_can_be_checked():
    (report,) = check_data(ScenesDataModule(2, 1, size=(64, 128)), ["train"])
    assert report.problems == []
    assert report.pixels.sum() == 2 * 64 * 128


def test_real_cityscapes(cityscapes_root):
    train, val = check_data(CityscapesDataModule(cityscapes_root))
    assert train.sizes == {(1024, 2048): 2}
    assert train.problems == val.problems == []
    assert train.pixels.sum() == val.pixels.sum() == 2 * 1024 * 2048
