import pytest

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
