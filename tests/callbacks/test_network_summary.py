import pytorch_lightning as pl
import torch

from gscnn_lightning import GSCNNTask, ScenesDataModule
from gscnn_lightning.callbacks import NetworkSummary


def test_costs_are_printed_instead_of_modules(capsys, tmp_path):
    size = {"channels": 16, "skip_channels": 8, "shape_channels": 16}
    task = GSCNNTask(19, backbone="test_resnet", pretrained=False, **size)
    data = ScenesDataModule(size=(64, 128), crop_size=(64, 96), train_samples=2, batch_size=2, num_workers=0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    callbacks = [NetworkSummary()]
    trainer = pl.Trainer(max_steps=1, limit_val_batches=0, accelerator="cpu", callbacks=callbacks, **quiet)
    trainer.fit(task, data)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["test_resnet,", "one", "image", "of", "64x96", "pixels"] in lines
    total = next(line for line in lines if line[0] == "total")
    assert total[1] == f"{sum(p.numel() for p in task.network.parameters()):,}"
    assert {"trunk", "shape", "ASPP", "decoder"} <= {line[0] for line in lines}
    assert not any("Modules" in line for line in lines)


def test_another_network_gets_lightnings_summary(capsys):
    class Other(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Linear(3, 4)

    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    NetworkSummary().on_fit_start(trainer, Other())
    assert "one image of" not in capsys.readouterr().out
