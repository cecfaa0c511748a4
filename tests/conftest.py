"""Data outside the project is found through environment variables; tests that need it skip where one is not set."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch


def _from_environment(variable: str, what: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not set: it names the folder with {what}")
    path = Path(os.environ[variable])
    assert path.is_dir(), f"{variable}={path} is no folder"
    return path


@pytest.fixture(scope="session")
def cityscapes_root():
    return _from_environment("CITYSCAPES_DATASET", "Cityscapes in the official layout")


@pytest.fixture(scope="session")
def camvid_root():
    return _from_environment("GSCNN_CAMVID_ROOT", "CamVid in the SegNet layout")


@pytest.fixture(scope="session")
def reference_dir():
    return _from_environment("GSCNN_REFERENCE_DIR", "reference numbers of the published program")


@pytest.fixture(scope="session")
def reference(reference_dir):
    """Reads one file of reference numbers as a dict of arrays."""

    def read(name):
        with np.load(reference_dir / name) as arrays:
            return dict(arrays)

    return read


_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _PROCESSES > 1:
    # Processes that test beside each other share the cores, and so do those that they start.
    _THREADS = max(1, (os.cpu_count() or 1) // _PROCESSES)
    os.environ["OMP_NUM_THREADS"] = str(_THREADS)
    torch.set_num_threads(_THREADS)
    cv2.setNumThreads(_THREADS)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def official(monkeypatch):
    """The evaluation of ``cityscapesscripts``, without a word and without files."""
    module = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    if not hasattr(np, "in1d"):  # as NumPy was called when it was written
        monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    monkeypatch.setattr(module.args, "quiet", True)
    monkeypatch.setattr(module.args, "JSONOutput", False)
    return module


@pytest.fixture
def video(tmp_path):
    """Writes a video whose frame k has the grey level 40 k."""

    def write(frames, name="drive.mp4", size=(64, 48), fourcc="mp4v"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 10.0, size)
        for index in range(frames):
            writer.write(np.full((size[1], size[0], 3), 40 * index, np.uint8))
        writer.release()
        return path

    return write
