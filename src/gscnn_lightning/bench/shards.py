"""``gscnn bench shards``: training samples from shards beside those from files, and a million frames without pixels."""

import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gscnn_lightning.bench import Timing, print_table, time_side_by_side
from gscnn_lightning.terminal import new_table, say

if TYPE_CHECKING:
    from gscnn_lightning.data import SegmentationDataModule, Source

FILES = "files"


def measure_shards(
    config: str, roots: Sequence[str], workers: Sequence[int], repeats: int, others: Sequence[str]
) -> None:
    """Print start-up time and samples per second of files and of the shards made of them.

    Args:
        config: config of the files.
        roots: places of their shards.
        workers: numbers of loading processes.
        repeats: rounds of each measurement.
        others: further settings of the data, for both.

    Raises:
        GSCNNError: the data cannot be used.
    """
    import cv2
    from pytorch_lightning.cli import instantiate_class

    from gscnn_lightning.data import ShardsDataModule
    from gscnn_lightning.fit_settings import data_settings

    settings = data_settings(["--config", config, *others])
    cv2.setNumThreads(1)
    # What shards have, too; the rest is about files.
    kept = {"batch_size", "crop_size", "scale", "class_uniform", "class_uniform_over", "flip", "color_jitter", "blur"}
    common = {name: value for name, value in settings["init_args"].items() if name in kept}
    common |= {"cache_gb": 0.0, "batch_size": 1}

    def files(**change: Any) -> "SegmentationDataModule":  # noqa: ANN401
        init = {**settings["init_args"], **common, **change}
        module: SegmentationDataModule = instantiate_class((), {**settings, "init_args": init})
        return module

    def shards(root: str) -> "Callable[..., SegmentationDataModule]":
        return lambda **change: ShardsDataModule(root, **common, **change)

    makers = {FILES: files, **{root: shards(root) for root in roots}}
    count = len(files().source("train"))
    starts: dict[str, Callable[[], object]] = {name: partial(_start, make) for name, make in makers.items()}
    print_table(f"start-up: find, check and index {count} frames", time_side_by_side(starts, repeats), FILES)
    reads: dict[str, Callable[[], object]] = {}
    order = np.random.default_rng(0).permutation(count).tolist()
    for name, make in makers.items():
        reads[name] = partial(_read, make().source("train"), order)
    _print_rates(f"{count} frames read and decoded in random order", reads, repeats, count)
    for number in workers:
        loaders = {name: make(num_workers=number).train_dataloader() for name, make in makers.items()}
        drains: dict[str, Callable[[], object]] = {
            name: partial(deque, loader, maxlen=0) for name, loader in loaders.items()
        }
        _print_rates(f"{count} training samples, {number} loading processes", drains, repeats, count)


def _start(make: "Callable[..., SegmentationDataModule]") -> None:
    module = make(num_workers=0)
    module.setup("fit")
    module.train_dataloader()


def _read(source: "Source", order: Sequence[int]) -> None:
    for index in order:
        source.load(index)


def _print_rates(title: str, calls: dict[str, Callable[[], object]], repeats: int, count: int) -> None:
    timings: dict[str, Timing] = time_side_by_side(calls, repeats)
    rates = {name: f"{count / timing.seconds:.1f}" for name, timing in timings.items()}
    print_table(title, timings, FILES, {"samples/s": rates})


def measure_scale(frames: int, per_shard: int = 28, tiles_per_frame: int = 60) -> None:
    """Print seconds and memory of a shard set of made names without pixels: a simulation.

    Args:
        frames: their number.
        per_shard: frames of a shard: 28 of Cityscapes make 64 MB.
        tiles_per_frame: rows of the index of class-uniform sampling for each frame.
    """
    table = new_table(f"SIMULATED: {frames} made names, no pixels; shards are empty files of the right sizes")
    for heading in ("what", "seconds", "of processor", "MB more", "peak MB more"):
        table.add_column(heading, justify="left" if heading == "what" else "right")

    def step(what: str, do: Callable[[], Any]) -> Any:  # noqa: ANN401
        before = _memory()[0]
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        starts = time.perf_counter(), time.process_time()
        result = do()
        seconds, own = time.perf_counter() - starts[0], time.process_time() - starts[1]
        after, peak = _memory()
        table.add_row(
            what, f"{seconds:.2f}", f"{own:.2f}", f"{(after - before) / 1e6:.0f}", f"{(peak - before) / 1e6:.0f}"
        )
        return result

    from gscnn_lightning.data import ShardsDataModule
    from gscnn_lightning.data.ahead import results_in_order

    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, whose memory does not serve what is measured.
        maker = get_context("spawn").Process(target=_made_set, args=(Path(folder), frames, per_shard, tiles_per_frame))
        maker.start()
        maker.join()
        settings: dict[str, Any] = {"num_workers": 0, "crop_size": (720, 720), "cache_gb": 0.0, "batch_size": 8}
        data = ShardsDataModule(folder, **settings, class_uniform=0.5, class_uniform_over="data")
        source = step("read the index, look for all shards", lambda: data.checked_source("train"))
        step("read the index of class-uniform sampling", source.class_tiles)
        data.datasets["train"] = step("data set with its augmentation", lambda: _unchecked(data))
        loader = step("loader, which reads that index", data.train_dataloader)
        sampler: Any = loader.sampler
        step("first sample of an epoch", lambda: next(iter(sampler)))
        step("all samples of an epoch, drawn", lambda: sum(1 for _ in sampler))
        sampler.progress = lambda: frames // 2
        step("first sample after a resume in the middle", lambda: next(iter(sampler)))
        places = np.random.default_rng(0).integers(0, frames, 100_000).tolist()
        step(
            "100000 places of frames, and their names",
            lambda: [(source.frames.shard(i), source.name(i)) for i in places],
        )
    files = step("beside it: the list of as many pairs of files", lambda: _made_files(frames))
    step(
        "... each looked at in threads, were it there",
        lambda: list(results_in_order(lambda _: (), range(len(files)), 8)),
    )
    say(table)


def _made_files(frames: int) -> "Source":
    """What `FolderDataModule` has of as many frames."""
    from gscnn_lightning.data.cityscapes import FROM_ID
    from gscnn_lightning.data.files import FileSource, Frame

    names = (f"city{i % 50:02}/city{i % 50:02}_{i:06}_000019" for i in range(frames))
    images, labels = Path("/data/images"), Path("/data/masks")
    return FileSource([Frame(n, images / f"{n}.png", labels / f"{n}.png") for n in names], FROM_ID)


def _unchecked(data: "SegmentationDataModule") -> Any:  # noqa: ANN401
    """The training split as a data set, without a look at its labels, which are not there."""
    from gscnn_lightning.data import SegmentationDataset

    return SegmentationDataset(data.checked_source("train"))


def _made_set(folder: Path, frames: int, per_shard: int, tiles_per_frame: int) -> None:
    from gscnn_lightning.classes import CITYSCAPES
    from gscnn_lightning.data.shards import layout

    rng = np.random.default_rng(0)
    names, ends = layout.joined_names([f"city{i % 50:02}/city{i % 50:02}_{i:06}_000019" for i in range(frames)])
    counts = np.full(-(-frames // per_shard), per_shard, np.int64)
    counts[-1] -= counts.sum() - frames
    size = 2_300_000
    place = np.arange(frames, dtype=np.int64) % per_shard
    arrays: dict[str, Any] = {
        "names": names,
        "ends": ends,
        "begins": (place * size).astype(np.uint32),
        "lengths": np.full(frames, size, np.uint32),
        "sums": np.zeros(frames, np.uint32),
        "counts": counts,
        "bytes": counts * size,
    }
    rows = frames * tiles_per_frame
    tiles: dict[str, Any] = {
        "labels": np.sort(rng.integers(0, 19, rows, dtype=np.uint8)),
        "frames": rng.integers(0, frames, rows, dtype=np.int32),
        "tops": rng.integers(0, 4, rows, dtype=np.int32) * 256,
        "lefts": rng.integers(0, 8, rows, dtype=np.int32) * 256,
    }
    contents = {layout.FRAMES: layout.arrays_as_bytes(arrays), layout.TILES: layout.arrays_as_bytes(tiles)}
    (folder / "train").mkdir()
    for name, content in contents.items():
        (folder / "train" / name).write_bytes(content)
    for number, length in enumerate(arrays["bytes"].tolist()):
        with (folder / layout.shard_name("train", number)).open("wb") as file:
            file.truncate(length)
    about = {
        "frames_digest": layout.digest_of(contents[layout.FRAMES]),
        "tiles_digest": layout.digest_of(contents[layout.TILES]),
        "notes": [],
        "instances": False,
        "bytes": int(arrays["bytes"].sum()),
    }
    classes = {"names": list(CITYSCAPES.names), "colors": list(CITYSCAPES.colors)}
    manifest = {"kind": layout.KIND, "version": layout.VERSION, "classes": classes, "splits": {"train": about}}
    (folder / layout.MANIFEST).write_bytes(layout.manifest_as_bytes(manifest))


def _memory() -> tuple[int, int]:
    """Resident bytes of this process, and their peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024
