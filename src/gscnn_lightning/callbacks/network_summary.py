"""What the network costs, printed when training starts."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary
from rich import get_console
from rich.text import Text

from gscnn_lightning.data.base import SegmentationDataModule
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.cost import cost_table, network_cost


class NetworkSummary(ModelSummary):
    """Parameters and GFLOPs of trunk, shape stream, ASPP and decoder, in place of Lightning's table of modules.

    Operations are those of a forward pass of one training crop, of 1024x2048 pixels where frames are not cropped.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table; for another network than ``GSCNN``, Lightning's."""
        network = getattr(pl_module, "network", None)
        if not isinstance(network, GSCNN):
            super().on_fit_start(trainer, pl_module)
        elif trainer.is_global_zero:
            data = trainer.datamodule  # type: ignore[attr-defined]
            crop = data.augmentation["crop_size"] if isinstance(data, SegmentationDataModule) else None
            height, width = crop or (1024, 2048)
            console = get_console()
            console.print(Text(f"{network.backbone.name}, one image of {height}x{width} pixels"), soft_wrap=True)
            console.print(cost_table(network_cost(network, (height, width))))
