from datetime import timedelta

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Timer

from gscnn_lightning.callbacks import FinalValidation


@pytest.mark.parametrize(("epochs", "every", "expected"), [(1, 2, [0]), (3, 2, [1, 2]), (4, 2, [1, 3]), (2, 1, [0, 1])])
def test_last_epoch_is_validated(epochs, every, expected, make_trainer, color_task, squares_data):
    task, validated = color_task(scores=(0.1,) * epochs), []
    task.on_validation_epoch_start = lambda: validated.append(task.current_epoch)
    trainer = make_trainer(
        [FinalValidation()], max_epochs=epochs, check_val_every_n_epoch=every, num_sanity_val_steps=0
    )
    trainer.fit(task, datamodule=squares_data())
    assert validated == expected


@pytest.mark.parametrize(
    ("ended_by", "settings"),
    [
        ([], {"max_epochs": -1, "max_steps": 1}),
        ([], {"max_epochs": -1, "max_steps": 5}),
        ([EarlyStopping("train/loss", stopping_threshold=1e9, check_on_train_epoch_end=True)], {}),
        ([Timer(timedelta(milliseconds=1))], {}),
    ],
    ids=["first epoch", "within an epoch", "early stopping", "time"],
)
def test_a_training_that_ends_between_validations_is_validated_and_has_a_best_checkpoint(
    ended_by, settings, make_trainer, color_task, squares_data, tmp_path
):
    task, validated = color_task(scores=(0.1, 0.2, 0.3)), []
    task.on_validation_epoch_start = lambda: validated.append(task.trainer.global_step)
    best = ModelCheckpoint(tmp_path, "best", monitor="val/miou", mode="max")
    trainer = make_trainer(
        [*ended_by, FinalValidation(), best],
        **{"max_epochs": 3, "check_val_every_n_epoch": 3, "num_sanity_val_steps": 0, **settings},
    )
    trainer.fit(task, datamodule=squares_data())
    assert validated == [trainer.global_step]
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == trainer.global_step
    assert trainer.state.finished


def test_nothing_is_validated_twice_or_where_there_is_no_validation(make_trainer, color_task, squares_data):
    task, validated = color_task(), []
    task.on_validation_epoch_start = lambda: validated.append(task.trainer.global_step)
    trainer = make_trainer([FinalValidation()], max_epochs=-1, max_steps=3, num_sanity_val_steps=0)
    trainer.fit(task, datamodule=squares_data())
    assert validated == [3]  # by Lightning, at the end of the epoch
    trainer = make_trainer([FinalValidation()], max_epochs=-1, max_steps=2, limit_val_batches=0)
    trainer.fit(task, datamodule=squares_data())
    assert validated == [3]
