"""A task and a data module that keep the contract with the callbacks, as small as possible."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from gscnn_lightning.data import label_boundaries
from gscnn_lightning.output import GSCNNOutput, predictions
from gscnn_lightning.scores import Scores

COLORS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))


class Squares(Dataset):
    """Coloured squares; the colour tells the class, class 2 ("ghost") never occurs."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        mask = torch.zeros(24, 32, dtype=torch.uint8)
        mask[6:18, 4 + index : 16 + index] = 1
        image = torch.tensor(COLORS, dtype=torch.uint8)[mask.long()].permute(2, 0, 1).contiguous()
        mask[:, 30:] = 255
        return {"image": image, "mask": mask, "name": f"city/{index:02}"}


class SquaresData(pl.LightningDataModule):
    class_names = ("ground", "square", "ghost")
    class_colors = COLORS
    boundaries = staticmethod(label_boundaries)

    def __init__(self, length=6):
        super().__init__()
        self.length = length

    def loader(self):
        return DataLoader(Squares(self.length), batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


class ColorTask(pl.LightningModule):
    """A 1x1 convolution from colour to class; validation scores come from a list, to be hostile to order."""

    def __init__(self, scores=(0.25, 0.75, 0.5), shape_stream=True):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 3, 1))
        self.scores = scores
        self.shape_stream = shape_stream
        self.stage_scores = {}
        self.forward_modes = []
        self.seen_weights = []

    def forward(self, image):
        self.forward_modes.append(self.training)
        self.seen_weights.append(self.network[1].bias.detach().clone())
        logits = self.network(image.float() / 255)
        if not self.shape_stream:
            return GSCNNOutput(logits, None, ())
        gates = tuple(logits[:, :1, ::2, ::2].sigmoid() for _ in range(3))
        return GSCNNOutput(logits, logits[:, 1:2], gates)

    predict_output = forward

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.cross_entropy(
            self(batch["image"]).seg_logits, batch["mask"].long(), ignore_index=255
        )
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/loss_boundary", loss / 2)
        return loss

    def on_validation_epoch_end(self):
        # Sanity checking reports a perfect score, which must not count.
        self.evaluate("val", 1.0 if self.trainer.sanity_checking else self.scores[self.current_epoch])

    def validation_step(self, batch, batch_idx):
        pass

    def on_test_epoch_end(self):
        self.evaluate("test", 0.5)

    test_step = validation_step

    def evaluate(self, stage, score):
        nan = torch.nan
        classes = {"iou": [score, score / 2, nan], "boundary_f1_1px": [score, 0, nan], "boundary_f1_3px": [1, 0, nan]}
        means = {"miou": score, "boundary_f1_1px": score / 2, "boundary_f1_3px": 0.5}
        self.stage_scores[stage] = Scores(means, classes)
        for name, value in means.items():
            self.log(f"{stage}/{name}", value)

    def predict_step(self, batch, batch_idx):
        return predictions(self(batch["image"]), batch, trust=getattr(self, "trust_maps", ()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


@pytest.fixture
def color_task():
    return ColorTask


@pytest.fixture
def squares_data():
    return SquaresData


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer with a CSV logger in ``tmp_path/run``."""

    def make(callbacks, **settings):
        logger = pl.loggers.CSVLogger(tmp_path, name="run", version="")
        defaults = {"max_epochs": 3, "accelerator": "cpu", "logger": logger, "enable_progress_bar": False}
        defaults |= {"enable_model_summary": False, "log_every_n_steps": 1, "enable_checkpointing": False}
        if any(isinstance(callback, pl.callbacks.ModelCheckpoint) for callback in callbacks):
            defaults["enable_checkpointing"] = True
        return pl.Trainer(callbacks=callbacks, **defaults | settings)

    return make
