"""A run that is interrupted within an epoch and resumed trains on the same samples as one that is not."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from tests.data.test_base import BoardsDataModule, Checkerboards

from gscnn_lightning import GSCNNTask


class Boards(Checkerboards):
    """Large enough for the network."""

    def __init__(self, length, labelled=True):
        super().__init__(length, (40, 48), labelled)


class Seen(Callback):
    """Writes down epoch, names and a digest of the pixels of every training batch."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append((trainer.current_epoch, tuple(batch["name"]), int(batch["image"].long().sum())))


def task():
    return GSCNNTask(
        num_classes=11, backbone="test_resnet", pretrained=False, output_stride=32, channels=8, skip_channels=8,
        shape_channels=8, boundary_tolerances=[1], poly_power=0.9, warmup_steps=2,
    )  # fmt: skip


def data(workers):
    settings = {"batch_size": 2, "num_workers": workers, "crop_size": (32, 32), "seed": 5}
    return BoardsDataModule(train=10, val=1, source_class=Boards, **settings)


def run(folder, workers=0, checkpoint=None, callbacks=(), epochs=3, **settings):
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, precision="32-true", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0, max_epochs=epochs,
        callbacks=[seen, *callbacks], **{"limit_val_batches": 0, **settings},
    )  # fmt: skip
    torch.manual_seed(0)
    module = task()
    trainer.fit(module, data(workers), ckpt_path=checkpoint)
    rate = trainer.optimizers[0].param_groups[-1]["lr"]
    return seen.batches, rate


def saving(folder, **when):
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **when)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folder with a checkpoint of every step, batches and final learning rate of a run of three epochs."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, callbacks=[saving(folder, every_n_train_steps=1)])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [5, 8])
def test_resumes_within_and_at_the_end_of_an_epoch(step, workers, uninterrupted, tmp_path):
    folder, whole, rate = uninterrupted
    assert len(whole) == 15  # five batches in each epoch
    resumed, resumed_rate = run(tmp_path, workers, folder / f"step={step}.ckpt", enable_checkpointing=False)
    assert resumed == whole[step:]
    assert resumed_rate == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("at_end", "steps"), [(True, (5, 10)), (False, (2, 7))], ids=["epoch", "validation"])
def test_resumes_from_checkpoints_of_epochs_and_validations(at_end, steps, workers, tmp_path):
    settings = {"val_check_interval": 2, "limit_val_batches": 1}
    whole, _ = run(tmp_path, callbacks=[saving(tmp_path, save_on_train_epoch_end=at_end)], **settings)
    for step in steps:
        resumed, _ = run(tmp_path, workers, tmp_path / f"step={step}.ckpt", enable_checkpointing=False, **settings)
        assert resumed == whole[step:], step


def test_resumes_with_accumulated_gradients_and_limited_epochs(tmp_path):
    settings = {"accumulate_grad_batches": 2, "limit_train_batches": 4}
    whole, _ = run(tmp_path, callbacks=[saving(tmp_path, every_n_train_steps=1)], **settings)
    assert len(whole) == 12
    for step, batches in ((1, 2), (2, 4), (3, 6)):
        resumed, _ = run(tmp_path, 0, tmp_path / f"step={step}.ckpt", enable_checkpointing=False, **settings)
        assert resumed == whole[batches:], step


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_when_the_optimizer_asks_for_the_number_of_steps(workers, uninterrupted, tmp_path, monkeypatch):
    """Lightning then makes the loaders before it restores the progress."""
    configure = GSCNNTask.configure_optimizers

    def ask(self):
        assert self.trainer.estimated_stepping_batches == 15
        return configure(self)

    monkeypatch.setattr(GSCNNTask, "configure_optimizers", ask)
    folder, whole, _ = uninterrupted
    resumed, _ = run(tmp_path, workers, folder / "step=7.ckpt", enable_checkpointing=False)
    assert resumed == whole[7:]


def test_second_fit_of_one_trainer_goes_on_with_the_next_epoch(uninterrupted, tmp_path):
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, num_sanity_val_steps=0, max_epochs=2, callbacks=[seen], enable_checkpointing=False,
        limit_val_batches=0,
    )  # fmt: skip
    module, boards = task(), data(0)
    trainer.fit(module, boards)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, boards)
    assert seen.batches == uninterrupted[1]


def test_no_warning_that_resuming_would_be_unreliable(uninterrupted, tmp_path, recwarn):
    run(tmp_path, 0, uninterrupted[0] / "step=13.ckpt", enable_checkpointing=False)
    assert not [warning for warning in recwarn if "not resumable" in str(warning.message)]
