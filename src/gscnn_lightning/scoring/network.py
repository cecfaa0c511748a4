"""A network, measured on the frames of a data module: a checkpoint's task, or an exported file in its place."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from gscnn_lightning.exporting.network import ExportedNetwork
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.scores import Scores
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.terminal import progress


@torch.no_grad()
def predicted_frames(
    network: GSCNNTask | ExportedNetwork, data: LightningDataModule, split: str
) -> Iterator[tuple[Tensor, Tensor | None, Mapping[str, Any], Tensor]]:
    """Predictions of every frame by itself, in the order of the data, as `Evaluation.update` takes them.

    Args:
        network: with its settings of windows, scales and flips.
        data: the frames.
        split: "val" or "test".
    """
    loader: Any = data.val_dataloader() if split == "val" else data.test_dataloader()
    with progress(len(loader), "batches") as advance:
        for batch in loader:
            batch = data.transfer_batch_to_device(batch, network.device, 0)
            batch = data.on_after_batch_transfer(batch, 0)
            output = network.predict_output(batch["image"], gates=False)
            preds, prob = output.labels, output.boundary_prob
            for index in range(len(preds)):
                one = slice(index, index + 1)
                frame = {key: value[one] for key, value in batch.items() if isinstance(value, Tensor | list)}
                yield preds[one], None if prob is None else prob[one], frame, output.seg_logits[one]
            advance()


def score_network(
    network: GSCNNTask | ExportedNetwork, evaluation: Evaluation, data: LightningDataModule, split: str
) -> Scores:
    """All scores of a network, those of ``gscnn-fit test`` with the same predictions.

    Args:
        network: with its settings of windows, scales and flips.
        evaluation: the metrics.
        data: the frames.
        split: "val" or "test".
    """
    evaluation.reset()
    for frame in predicted_frames(network, data, split):
        evaluation.update(*frame)
    return evaluation.compute()
