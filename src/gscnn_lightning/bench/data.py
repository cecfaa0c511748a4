"""``gscnn bench data``: what loading, augmenting and boundaries cost beside decoding the files."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gscnn_lightning.bench import print_table, time_side_by_side
from gscnn_lightning.terminal import say

if TYPE_CHECKING:
    from gscnn_lightning.data import SegmentationDataModule
    from gscnn_lightning.data.files import Frame

Calls = dict[str, Callable[[], object]]


def measure_data(cityscapes: Path | None, camvid: Path | None, repeats: int) -> None:
    """Print the tables of ``gscnn bench data``.

    Args:
        cityscapes: folder of Cityscapes; by default that of the environment.
        camvid: folder of CamVid; by default that of the environment.
        repeats: rounds of each measurement.

    Raises:
        SettingError: there is neither.
    """
    from gscnn_lightning.errors import SettingError

    city = cityscapes or os.environ.get("CITYSCAPES_DATASET")
    cam = camvid or os.environ.get("GSCNN_CAMVID_ROOT")
    if not city and not cam:
        raise SettingError("nothing to measure: pass --cityscapes FOLDER or --camvid FOLDER")
    with _one_core():
        if city:
            _boundaries(Path(city), repeats)
            _samples(Path(city), repeats)
        if cam:
            _loaders(Path(cam), repeats)
            _compare_workers(Path(cam))


@contextmanager
def _one_core() -> Iterator[None]:
    """One thread per process for OpenCV and torch."""
    import cv2
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _boundaries(root: Path, repeats: int) -> None:
    """Boundary maps of a whole frame by array, and of a batch of crops by tensor."""
    import cv2
    import torch

    from gscnn_lightning.boundaries import disc
    from gscnn_lightning.data import CityscapesDataModule, label_boundaries

    module = CityscapesDataModule(root, crop_size=(720, 720), batch_size=1, num_workers=0)
    module.setup("fit")
    labels = module.datasets["val"][0]["mask"].numpy()
    crops = torch.stack([module.datasets["train"][turn, 0]["mask"] for turn in range(16)])
    element = disc(2)
    height, width = labels.shape
    pair = f"OpenCV disc maximum and minimum, {width}x{height}"
    calls: Calls = {
        pair: lambda: (cv2.dilate(labels, element), cv2.erode(labels, element)),
        f"label_boundaries of an array, {width}x{height}": lambda: label_boundaries(labels, 2),
        f"label_boundaries of a tensor, {len(crops)} crops of 720x720": lambda: label_boundaries(crops, 2),
    }
    print_table("Boundaries, radius 2", time_side_by_side(calls, 5 * repeats), pair)


def _samples(root: Path, repeats: int) -> None:
    """Training samples of 720x720 with their boundaries, and what they are made of."""
    from gscnn_lightning.data import CityscapesDataModule

    source = CityscapesDataModule(root).source("train")
    count = min(4, len(source))
    decode = "decode images and labels"
    calls: Calls = {
        decode: lambda: list(map(_decode, source.frames[:count])),
        "read, check, decode, to train ids": lambda: [source.load(index) for index in range(count)],
    }
    plain: dict[str, Any] = {"flip": 0.0, "color_jitter": 0.0, "blur": 0.0}
    for name, change in {
        "... and scale, crop, boundary": plain,
        "... and flip": {**plain, "flip": 0.5},
        "... and blur": {**plain, "flip": 0.5, "blur": 0.5},
        "... and colour: the default": {},
        "the default with class_uniform 0.5": {"class_uniform": 0.5},
        "the default with class_uniform 1": {"class_uniform": 1.0},
        "the default with class_uniform 1 over the data": {"class_uniform": 1.0, "class_uniform_over": "data"},
        "the default, decoded before and kept": {"cache_gb": 0.0084 * len(source)},
    }.items():
        settings: dict[str, Any] = {"batch_size": 1, "samples_per_epoch": 32 * len(source), "cache_gb": 0.0, **change}
        loader: Any = CityscapesDataModule(root, crop_size=(720, 720), num_workers=0, **settings).train_dataloader()
        keys = cycle([key for key in loader.sampler if key.frame < count])
        calls[name] = partial(_samples_of, loader.dataset, keys, count)
    print_table(f"{count} training samples of 720x720 with boundaries", time_side_by_side(calls, 4 * repeats), decode)


def _loaders(root: Path, repeats: int) -> None:
    """Samples per second from two loading processes."""
    from torch.utils.data import DataLoader

    from gscnn_lightning.data import SegmentationDataset

    module = _camvid(root, num_workers=2)
    trained, uncached = module.train_dataloader(), _camvid(root, num_workers=2, cache_gb=0.0).train_dataloader()
    frames: Any = module.source("train")
    decoded: Any = _Decoded(frames.frames)
    settings: dict[str, Any] = {
        "batch_size": module.batch_size,
        "num_workers": 2,
        "persistent_workers": True,
        "worker_init_fn": trained.worker_init_fn,
    }
    decode, whole = "decode alone, hand over nothing", "decode, hand over whole frames"
    loaders: dict[str, Any] = {
        decode: DataLoader(decoded, **settings),
        whole: DataLoader(SegmentationDataset(frames), **settings),
        "training crops, frames decoded every time": uncached,
        "training crops as in the config camvid, frames kept": trained,
    }
    timings = time_side_by_side({name: partial(_drain, loader) for name, loader in loaders.items()}, repeats)
    title = f"{len(frames)} CamVid samples from 2 loading processes"
    print_table(title, timings, decode)
    for name, timing in timings.items():
        alone, handed = (timings[baseline].ratio(timing) for baseline in (decode, whole))
        rate = f"{len(frames) / timing.seconds:.0f} samples/s"
        say(f"{name}: {rate}, {alone:.0%} of decoding alone, {handed:.0%} of handing over whole frames")


def _compare_workers(root: Path) -> None:
    """Whether batches depend on the number of loading processes."""
    digests = {}
    for workers in (0, 1, 2):
        digest = hashlib.sha256()
        for batch in islice(_camvid(root, num_workers=workers).train_dataloader(), 20):
            digest.update("".join(batch["name"]).encode())
            digest.update(batch["image"].numpy())
            digest.update(batch["mask"].numpy())
        digests[workers] = digest.hexdigest()
    same = len(set(digests.values())) == 1
    say(f"20 training batches from 0, 1 and 2 loading processes: {'identical' if same else 'DIFFERENT'}")


def _camvid(root: Path, num_workers: int, **change: Any) -> "SegmentationDataModule":  # noqa: ANN401
    """CamVid as in the config of this name."""
    from gscnn_lightning.data import CamVidDataModule

    settings: dict[str, Any] = {"crop_size": (184, 240), "scale": (0.5, 1.0), "class_uniform": 0.75, "blur": 0.0}
    return CamVidDataModule(root, batch_size=8, num_workers=num_workers, **settings, **change)


class _Decoded:
    """Decodes the files of a frame and hands over nothing."""

    def __init__(self, frames: "Sequence[Frame]") -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> int:
        _decode(self.frames[index])
        return index


def _decode(frame: "Frame") -> None:
    import cv2

    cv2.imread(str(frame.image), cv2.IMREAD_COLOR)
    cv2.imread(str(frame.labels), cv2.IMREAD_UNCHANGED)


def _samples_of(dataset: Any, keys: Iterator[Any], count: int) -> None:  # noqa: ANN401
    from gscnn_lightning.data import label_boundaries

    for key in islice(keys, count):
        label_boundaries(dataset[key]["mask"].numpy(), 2)


def _drain(loader: Iterable[Any]) -> None:
    for _ in loader:
        pass
