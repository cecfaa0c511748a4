import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser

from gscnn_lightning.data import (
    CAMVID,
    CITYSCAPES,
    CamVidDataModule,
    ScenesDataModule,
    SegmentationDataModule,
    SegmentationDataset,
    Source,
    label_boundaries,
)
from gscnn_lightning.data.samplers import EvalSampler, TrainSampler
from gscnn_lightning.errors import DataError


class Checkerboards(Source):
    """Frames in memory: checkerboards whose number of squares is the index."""

    def __init__(self, length, size=(24, 32), labelled=True):
        self.length, self.size, self.labelled = length, size, labelled

    def __len__(self):
        return self.length

    def name(self, index):
        return f"boards/{index:03d}"

    def load(self, index):
        y, x = np.mgrid[: self.size[0], : self.size[1]]
        labels = ((y // (index + 1) + x // (index + 1)) % 11).astype(np.uint8)
        image = np.stack([labels * 20, labels + index, 255 - labels], axis=-1).astype(np.uint8)
        return image, labels if self.labelled else None


class BrokenAt2(Checkerboards):
    def load(self, index):
        if index == 2:
            raise DataError("board 002 (sample 2) is broken: replace it")
        return super().load(index)


class BoardsDataModule(SegmentationDataModule):
    def __init__(self, train=10, val=3, predict_labelled=True, source_class=Checkerboards, **kwargs):
        super().__init__(CAMVID, **kwargs)
        self.lengths = {"train": train, "val": val, "test": val + 1, "predict": 2}
        self.predict_labelled = predict_labelled
        self.source_class = source_class

    def source(self, split):
        return self.source_class(self.lengths[split], labelled=split != "predict" or self.predict_labelled)


def epochs(data, count):
    """All training batches of some epochs."""
    loader = data.train_dataloader()
    batches = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        batches.append(list(loader))
    return batches


class Recorder(pl.LightningModule):
    """Keeps the batches a trainer hands to it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch, _):
        self.batches["train"].append((self.current_epoch, batch))
        return self.weight * 0

    def validation_step(self, batch, _):
        self.batches["val"].append(batch)

    def test_step(self, batch):
        self.batches["test"].append(batch)

    def predict_step(self, batch, _):
        self.batches["predict"].append(batch)
        return batch["name"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path, devices=1, **kwargs):
    return pl.Trainer(
        accelerator="cpu", devices=devices, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0, **kwargs,
    )  # fmt: skip


def test_class_attributes_are_there_before_setup():
    data = BoardsDataModule()
    assert data.num_classes == 11
    assert data.class_names[:2] == ("sky", "building")
    assert data.class_colors[0] == (128, 128, 128)
    assert data.ignore_index == 255


def test_samples_follow_the_contract():
    image, labels = Checkerboards(5).load(3)
    sample = SegmentationDataset(Checkerboards(5))[3]
    assert sample["name"] == "boards/003"
    assert sample["image"].dtype == sample["mask"].dtype == torch.uint8
    assert sample["image"].is_contiguous()
    assert np.array_equal(sample["image"].numpy(), image.transpose(2, 0, 1))
    assert np.array_equal(sample["mask"].numpy(), labels)
    assert "mask" not in SegmentationDataset(Checkerboards(5, labelled=False))[3]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    settings = {"batch_size": 4, "crop_size": (16, 16), "class_uniform": 0.5, "blur": 1.0}
    alone = epochs(BoardsDataModule(num_workers=0, **settings), 2)
    others = epochs(BoardsDataModule(num_workers=workers, **settings), 2)
    for batch, other in zip(alone[0] + alone[1], others[0] + others[1], strict=True):
        assert batch["name"] == other["name"]
        assert torch.equal(batch["image"], other["image"])
        assert torch.equal(batch["mask"], other["mask"])


def test_passes_differ_in_order_and_augmentation_and_seeds_differ():
    settings = {"batch_size": 5, "num_workers": 0, "crop_size": (16, 16)}
    first, second = epochs(BoardsDataModule(**settings), 2)
    names = [[name for batch in epoch for name in batch["name"]] for epoch in (first, second)]
    assert sorted(names[0]) == sorted(names[1]) == [f"boards/{i:03d}" for i in range(10)]
    assert names[0] != names[1]
    masks = [{n: m for b in epoch for n, m in zip(b["name"], b["mask"], strict=True)} for epoch in (first, second)]
    assert sum(torch.equal(masks[0][name], masks[1][name]) for name in masks[0]) <= 1
    other_seed = epochs(BoardsDataModule(seed=1, **settings), 1)[0]
    assert [name for batch in other_seed for name in batch["name"]] != names[0]


def test_every_step_has_a_full_batch_and_no_sample_is_lost():
    data = BoardsDataModule(train=10, batch_size=4, num_workers=0)
    loader = data.train_dataloader()
    assert len(loader) == 2
    batches = [batch for epoch in epochs(data, 5) for batch in epoch]
    assert {len(batch["name"]) for batch in batches} == {4}
    # Five epochs of eight are four passes through ten.
    names = [name for batch in batches for name in batch["name"]]
    assert all(names.count(f"boards/{i:03d}") == 4 for i in range(10))


def test_epochs_can_be_longer_or_shorter_than_the_data():
    data = BoardsDataModule(train=2, batch_size=2, samples_per_epoch=9, num_workers=0, crop_size=(8, 8))
    (batches,) = epochs(data, 1)
    assert len(batches) == 4
    assert all(sorted(batch["name"]) == ["boards/000", "boards/001"] for batch in batches)
    # The same frame comes back with another augmentation within one epoch.
    assert len({batch["image"].numpy().tobytes() for batch in batches}) == 4
    short = BoardsDataModule(train=10, batch_size=2, samples_per_epoch=4, num_workers=0)
    names = [name for epoch in epochs(short, 5) for batch in epoch for name in batch["name"]]
    assert all(names.count(f"boards/{i:03d}") == 2 for i in range(10))


def test_train_sampler_shares_out_one_stream():
    whole = list(TrainSampler(range(7), 6, seed=3))
    parts = [list(TrainSampler(range(7), 6, seed=3, num_replicas=3, rank=rank)) for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert [parts[i % 3][i // 3] for i in range(6)] == whole
    assert whole == list(TrainSampler(range(7), 6, seed=3))


@pytest.mark.parametrize(("length", "world"), [(5, 2), (7, 3), (4, 4), (6, 1)])
def test_eval_sampler_counts_every_sample_once(length, world):
    samplers = [EvalSampler(range(length), num_replicas=world, rank=rank) for rank in range(world)]
    shares = [list(sampler) for sampler in samplers]
    assert sorted(i for share in shares for i in share) == list(range(length))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]


def test_trainer_sees_all_stages(tmp_path):
    data = BoardsDataModule(train=6, val=3, batch_size=2, num_workers=0, crop_size=(16, 24), predict_labelled=False)
    task = Recorder()
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(task, data)
    fit.test(task, data, verbose=False)
    fit.predict(task, data)
    orders = [[n for when, batch in task.batches["train"] if when == epoch for n in batch["name"]] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]  # Lightning told the sampler about the epoch
    for _, batch in task.batches["train"]:
        assert batch["image"].shape == (2, 3, 16, 24)
        assert batch["boundary"].shape == (2, 1, 16, 24)
        assert batch["boundary"].dtype == torch.uint8
        assert torch.equal(batch["boundary"][:, 0], label_boundaries(batch["mask"], 2))
    assert [batch["name"] for batch in task.batches["val"][:3]] == [[f"boards/00{i}"] for i in range(3)]
    assert len(task.batches["test"]) == 4
    assert task.batches["test"][0]["image"].shape == (1, 3, 24, 32)
    assert [sorted(batch) for batch in task.batches["predict"]] == [["image", "name"]] * 2


def test_boundary_radius_is_used():
    data = BoardsDataModule(boundary_radius=1, num_workers=0)
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    assert torch.equal(batch["boundary"][:, 0], label_boundaries(batch["mask"], 1))


def test_released_boundaries_can_be_chosen():
    data = BoardsDataModule(boundary_variant="release", num_workers=0)
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    expected = label_boundaries(batch["mask"], 2, void="boundary", frame=True)
    assert torch.equal(batch["boundary"][:, 0], expected)
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert data.boundaries(labels).sum() == 64 - 16  # the frame counts
    assert BoardsDataModule().boundaries(labels).sum() == 0
    with pytest.raises(ValueError, match="boundary_variant must be 'paper' or 'release', got 'clean'"):
        BoardsDataModule(boundary_variant="clean")


class Witness(Recorder):
    """Writes down the names that one process saw."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        seen = {"train": [name for _, batch in self.batches["train"] for name in batch["name"]]}
        seen["val"] = [name for batch in self.batches["val"] for name in batch["name"]]
        torch.save(seen, self.folder / f"{self.global_rank}.pt")


def test_two_processes_share_frames_without_padding(tmp_path):
    data = BoardsDataModule(train=9, val=5, batch_size=2, num_workers=0)
    trainer(tmp_path, devices=2, strategy="ddp_spawn", max_epochs=1).fit(Witness(tmp_path), data)
    seen = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert seen[0]["val"] == ["boards/000", "boards/002", "boards/004"]
    assert seen[1]["val"] == ["boards/001", "boards/003"]
    assert len(seen[0]["train"]) == len(seen[1]["train"]) == 4
    assert not set(seen[0]["train"]) & set(seen[1]["train"])


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_workers_keep_their_message(workers):
    data = BoardsDataModule(source_class=BrokenAt2, num_workers=workers)
    with pytest.raises(DataError, match=r"board 002 \(sample 2\) is broken: replace it"):
        list(data.val_dataloader())


def test_too_few_samples_for_a_step():
    data = BoardsDataModule(train=3, batch_size=4)
    with pytest.raises(DataError, match=r"epoch of 3 .* batch size 4: .* samples_per_epoch of at least 4"):
        data.train_dataloader()


def test_empty_split():
    with pytest.raises(DataError, match="train split of BoardsDataModule is empty"):
        BoardsDataModule(train=0).setup("fit")


def test_sizes_that_differ_in_a_source_without_check():
    class Odd(Checkerboards):
        def load(self, index):
            image, labels = super().load(index)
            return image, labels[1:]

    with pytest.raises(DataError, match=r"boards/001 \(sample 1\): image is 32x24 pixels, label map 32x23"):
        SegmentationDataset(Odd(2))[1]


@pytest.mark.parametrize("name", ["batch_size", "val_batch_size", "samples_per_epoch"])
def test_sizes_below_one(name):
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        BoardsDataModule(**{name: 0})


def test_wrong_augmentation_is_named_at_setup():
    with pytest.raises(ValueError, match="flip is a probability"):
        BoardsDataModule(flip=2.0).setup("fit")


def test_default_workers_fit_the_machine():
    workers = BoardsDataModule().val_dataloader().num_workers
    assert 0 <= workers <= 4
    assert workers <= os.cpu_count()
    assert BoardsDataModule(num_workers=3)._workers() == 3


def test_every_setting_has_a_dotted_name(tmp_path):
    parser = ArgumentParser()
    parser.add_subclass_arguments(SegmentationDataModule, "data")
    config = parser.parse_args(
        [
            "--data=gscnn_lightning.data.CamVidDataModule",
            f"--data.root={tmp_path}",
            "--data.crop_size=[184,240]",
            "--data.scale=[0.5,1.0]",
            "--data.samples_per_epoch=200",
        ]
    )
    data = parser.instantiate(config).data
    assert isinstance(data, CamVidDataModule)
    assert data.augmentation["crop_size"] == (184, 240)
    assert data.augmentation["scale"] == (0.5, 1.0)
    assert data.samples_per_epoch == 200


def test_importing_the_package_does_not_import_albumentations():
    code = "import sys, gscnn_lightning.data; sys.exit('albumentations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_cityscapes_table_has_19_classes():
    assert len(CITYSCAPES) == 19
    assert CITYSCAPES.names[0] == "road"
    assert CITYSCAPES.names[18] == "bicycle"


def test_drawn_scenes():
    data = ScenesDataModule(
        train_samples=3, val_samples=2, size=(64, 128), num_workers=0, batch_size=3, crop_size=(32, 32)
    )
    (batch,) = epochs(data, 1)[0]
    assert batch["image"].shape == (3, 3, 32, 32)
    assert set(batch["mask"].unique().tolist()) <= {*range(19), 255}
    data.setup()
    assert [len(data.datasets[split]) for split in ("train", "val", "test", "predict")] == [3, 2, 2, 2]
    names = {split: {part.source.name(i) for i in range(len(part))} for split, part in data.datasets.items()}
    assert not names["train"] & names["val"]
    assert not names["test"] & (names["train"] | names["val"])
    # More training scenes, another shuffling seed: the same validation scenes.
    other = ScenesDataModule(train_samples=5, val_samples=2, size=(64, 128), seed=7)
    other.setup("validate")
    assert torch.equal(other.datasets["val"][1]["image"], data.datasets["val"][1]["image"])
    with pytest.raises(ValueError, match="must be 1 or more, got 0 and 64"):
        ScenesDataModule(train_samples=0)


def test_data_sets_survive_pickling_for_spawned_workers():
    data = BoardsDataModule(batch_size=2, num_workers=0, crop_size=(16, 16))
    data.setup("fit")
    copy = pickle.loads(pickle.dumps(data.datasets["train"]))
    assert torch.equal(copy[4, 3]["image"], data.datasets["train"][4, 3]["image"])


def test_overfitting_a_few_batches(tmp_path):
    task = Recorder()
    data = BoardsDataModule(train=6, batch_size=2, num_workers=0)
    with pytest.warns(UserWarning, match="overfit"):
        trainer(tmp_path, max_epochs=2, overfit_batches=1).fit(task, data)
    assert [batch["name"] for _, batch in task.batches["train"]] == [["boards/000", "boards/001"]] * 2


HANGING_UP = """
import os, sys, time
from multiprocessing import Pipe, Process, current_process, resource_sharer
from multiprocessing.connection import Client
from gscnn_lightning.data.base import begin_work

def hand_over(pipe):
    {first}
    shared = resource_sharer.DupFd(os.open(os.devnull, os.O_RDONLY))
    pipe.send(shared._id[0])
    time.sleep(0.5)

if __name__ == "__main__":
    ours, theirs = Pipe()
    worker = Process(target=hand_over, args=(theirs,))
    worker.start()
    Client(ours.recv(), authkey=current_process().authkey).close()
    worker.join()
"""


@pytest.mark.parametrize("begins", [False, True])
def test_a_killed_training_that_hangs_up_on_a_loading_process_is_no_traceback(begins, tmp_path):
    """What tensors are handed over by: a thread, to which the training connects for every batch."""
    program = tmp_path / "program.py"
    program.write_text(HANGING_UP.format(first="begin_work(0)" if begins else "pass"))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert ("Traceback" in done.stderr) is not begins
