"""Checkpoint files that are complete or not there, whenever a training is killed."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from gscnn_lightning.errors import WeightsError
from gscnn_lightning.hub_files import is_hub_model, read_as_checkpoint


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their place and then moves them there; the former file stands until the new one does.

    Lightning writes into the system's temporary folder and moves the file from there, which is a copy where that is
    another file system, and a kill in the middle of a copy leaves half a checkpoint in place of the former one.
    Addresses such as ``s3://`` are left to Lightning.
    """

    def load_checkpoint(
        self,
        path: Any,  # noqa: ANN401
        map_location: Any = lambda storage, _: storage,  # noqa: ANN401
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint as plain data, whatever the versions of Lightning and torch do by themselves."""
        if is_hub_model(path):
            return read_as_checkpoint(path)
        return super().load_checkpoint(path, map_location, weights_only=True)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ANN401
        """Write a checkpoint.

        Args:
            checkpoint: what Lightning has collected.
            path: file to write; its folder is made.
            storage_options: none, as in Lightning.

        Raises:
            WeightsError: it cannot be written; the former file is as it was.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        whole = Path(path)
        part = whole.with_name(f".{whole.name}.{os.getpid()}.part")
        try:
            whole.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(whole)
        except (OSError, RuntimeError) as error:  # torch's writer turns what the system says into a RuntimeError
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise WeightsError(
                f"checkpoint {whole} cannot be written ({reason}): make room, or give the right to write there"
            ) from error
        finally:
            with suppress(OSError):  # what is in the way of the file is in the way of this, too
                part.unlink(missing_ok=True)
        _sync_folder(whole.parent)


def _sync_folder(folder: Path) -> None:
    """Have the new name of a file on the disk, too, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems do not
    finally:
        os.close(descriptor)
