"""Batch normalisation over all devices, for backbones of timm."""

import timm.layers
from pytorch_lightning.plugins import LayerSync
from torch import nn


class TimmSyncBatchNorm(LayerSync):
    """Synchronised batch normalisation that keeps the activations which timm fuses into its layers.

    A plugin for the Trainer, in place of ``sync_batchnorm=True``: torch's own conversion replaces timm's
    ``BatchNormAct2d`` by a plain normalisation and so drops the activation behind it.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """The model with every batch normalisation synchronised."""
        return timm.layers.convert_sync_batchnorm(model)

    def revert(self, model: nn.Module) -> nn.Module:
        """The model as it is: synchronised layers also work on one device."""
        return model
