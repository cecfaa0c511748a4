"""Gated-SCNN for PyTorch Lightning: two-stream semantic segmentation with crisp boundaries."""

import importlib
from typing import TYPE_CHECKING, Any

from gscnn_lightning.version import __version__

if TYPE_CHECKING:
    from gscnn_lightning.data import CamVidDataModule, CityscapesDataModule, FolderDataModule, ScenesDataModule
    from gscnn_lightning.models import GSCNN
    from gscnn_lightning.task import GSCNNTask

_HOMES = {
    "GSCNN": "gscnn_lightning.models",
    "GSCNNTask": "gscnn_lightning.task",
    "CamVidDataModule": "gscnn_lightning.data",
    "CityscapesDataModule": "gscnn_lightning.data",
    "FolderDataModule": "gscnn_lightning.data",
    "ScenesDataModule": "gscnn_lightning.data",
}

__all__ = [
    "GSCNN",
    "CamVidDataModule",
    "CityscapesDataModule",
    "FolderDataModule",
    "GSCNNTask",
    "ScenesDataModule",
    "__version__",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a public name when it is first asked for: `import gscnn_lightning` alone does no work."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
