"""What all data modules share: samples, loaders, order, checks and boundary maps."""

import importlib.util
import itertools
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn, TrainerStatus
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from gscnn_lightning.boundaries import Labels, label_boundaries
from gscnn_lightning.checks import is_number
from gscnn_lightning.classes import IGNORE_INDEX, ClassTable
from gscnn_lightning.data.class_shares import class_shares
from gscnn_lightning.data.class_tiles import ClassTiles, Target, class_tiles
from gscnn_lightning.data.kept_frames import KeptFrames, Offer, can_keep
from gscnn_lightning.data.ranges import check_augmentation, check_count
from gscnn_lightning.data.samplers import EvalSampler, TrainSampler
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.score_names import check_class_names

Split = Literal["train", "val", "test", "predict"]
Sample = dict[str, Any]
Bytes = npt.NDArray[np.uint8]


_PART = 1024
"""Height and width of what is looked at of a large label map at a time."""


class Transform(Protocol):
    """An albumentations pipeline."""

    def set_random_seed(self, seed: int | None) -> None:
        """Restart the random numbers."""

    def __call__(self, *, image: Bytes, mask: Bytes, target: Target | None, **others: object) -> dict[str, Any]:
        """Augment one frame."""


class SegmentationDataset(Dataset[Sample]):
    """Samples {"image": uint8 (3, H, W), "mask": uint8 (H, W), "name": str}; "mask" is left out of unlabelled frames.

    Where the source has instance maps, frames as they are also have "instances": int32 (H, W), not translated.

    Args:
        source: the frames.
        transform: augmentation, None for frames as they are.
        seed: of the augmentation, which depends on nothing but (seed, pass through the data, index), hence neither on
            the number of workers nor of processes.
        kept: the same frames, decoded once; None to decode them whenever they are asked for.
        windows: read what a crop needs of frames of which parts can be read, in place of decoding all of them; the
            transform has to take `reader`, as `transforms.RandomScaleCrop` does.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform | None = None,
        seed: int = 0,
        kept: KeptFrames | None = None,
        windows: bool = False,
    ) -> None:
        self.windows = windows
        self.source = source
        self.kept = kept
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int | tuple[Any, ...]) -> Sample:
        """Sample of an index, or of a key (pass, index) or `Key` as `TrainSampler` gives it.

        Raises:
            DataError: a file is unreadable or its labels are not what they should be.
        """
        turn, index, *drawn = key if isinstance(key, tuple) else (0, key)
        position, target = drawn or (None, None)
        reader = self.source.open_windows(index) if self.windows and self.transform is not None else None
        image, mask = (self.kept or self.source).load(index) if reader is None else _placeholders(reader.shape)
        if mask is not None and image.shape[:2] != mask.shape:
            raise DataError(
                f"{self.source.name(index)} (sample {index}): image is {image.shape[1]}x{image.shape[0]} pixels, label "
                f"map {mask.shape[1]}x{mask.shape[0]}: resize one of them"
            )
        sample: Sample = {"name": self.source.name(index)}
        if self.transform is not None and mask is not None:
            entropy = (self.seed, turn, index) if position is None else (self.seed, turn, index, position)
            self.transform.set_random_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
            others = {} if reader is None else {"reader": reader}
            augmented = self.transform(image=image, mask=mask, target=target, **others)
            image, mask = augmented["image"], augmented["mask"]
        elif (instances := self.source.load_instances(index)) is not None:
            sample["instances"] = torch.from_numpy(instances)
        sample["image"] = planes(image)
        if mask is not None:
            sample["mask"] = torch.from_numpy(np.array(mask, order="C"))  # a copy: frames that are kept are read-only
        return sample


class ResumableLoader(DataLoader[Sample]):
    """Loader whose sampler continues an interrupted epoch from the trainer's progress, hence without a state.

    Lightning asks for the iterator before it has restored its progress and told the sampler the epoch, and loading
    processes begin at once. So nothing starts here until the first batch is asked for.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Nothing: with `load_state_dict`, it tells Lightning that resuming within an epoch is safe."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore."""


def _placeholders(shape: tuple[int, int]) -> tuple[Bytes, Bytes]:
    """Image and mask that have a size and take no memory."""
    return np.broadcast_to(np.uint8(0), (*shape, 3)), np.broadcast_to(np.uint8(0), shape)


def planes(image: Bytes) -> Tensor:
    """Image (H, W, 3) as a contiguous tensor (3, H, W); OpenCV separates the channels faster than a transpose does."""
    return torch.from_numpy(np.stack(cv2.split(image)))


class SegmentationDataModule(pl.LightningDataModule):
    """Base of the data modules: a subclass names its classes and says in `source` what serves which split.

    Batches are {"image": uint8 (B, 3, H, W), "mask": uint8 (B, H, W), "name": list of str}; once on the device,
    "boundary": uint8 (B, 1, H, W) in {0, 1} joins them, made by `label_boundaries` after the augmentation.
    Evaluation sees whole frames at their own size.

    Args:
        classes: class table of the data set.
        batch_size: training samples per step and device.
        val_batch_size: frames per step and device in validation, test and prediction; 1 where sizes differ.
        num_workers: loading processes per device, None for as many as there are cores per device, 4 at most.
        seed: of shuffling and augmentation.
        crop_size: height and width of training crops in pixels, None for whole frames.
        scale: range of the random scale of the crops' content.
        class_uniform: share of crops centred on a pixel of a class drawn uniformly, so that rare classes are seen more
            often.
        class_uniform_over: which classes that draw is over. "frame": those of the frame at hand, and all frames are
            seen equally often. "data": all classes of the training split, then a frame that has the class, so that
            frames with rare classes come up more often. An index of the classes' places is made once and kept in the
            user's cache folder, until the labels change.
        flip: probability of a horizontal flip.
        color_jitter: largest relative change of brightness, contrast and saturation, 0 for none; a fifth of it is the
            largest change of hue, as a share of the colour circle.
        blur: probability of a slight Gaussian blur.
        samples_per_epoch: training samples of all devices per epoch, None for one pass through the data. Epochs go on
            where the last one ended, so any number uses all samples equally.
        cache_gb: memory per machine, in 10^9 bytes, for decoded training frames, 0 for none. As many as fit, at 4 bytes
            per pixel, are decoded once and not in every epoch; the processes of all devices of a machine share them.
            On Linux.
        windows: read from TIFF files what a training crop needs, in place of decoding the whole picture: for pictures
            far larger than crops, such as aerial ones, in tiles or strips without lossy compression, upright, 8 bits,
            grey or RGB. Samples are the same to the bit. Other files are decoded as a whole; so are label maps in other
            formats, and those of crops with `class_uniform_over` "frame". Needs tifffile (the extra "tiles").
        boundary_radius: reach of the boundary maps in pixels, see `label_boundaries`.
        boundary_variant: "paper", or "release": contact with void and the frame of the crop are boundaries too, the
            rule that the published checkpoint was trained with (which also took class 0 for void; not here).

    Attributes:
        num_classes: number of classes K.
        class_names: K names.
        class_colors: K RGB colours, 0 to 255.
        ignore_index: label of void pixels, 255.

    Raises:
        ValueError: a number is out of range, or names of classes cannot be used; the message says which.
    """

    def __init__(
        self,
        classes: ClassTable,
        batch_size: int = 8,
        val_batch_size: int = 1,
        num_workers: int | None = None,
        seed: int = 0,
        crop_size: tuple[int, int] | None = None,
        scale: tuple[float, float] = (0.5, 2.0),
        class_uniform: float = 0.0,
        class_uniform_over: Literal["frame", "data"] = "frame",
        flip: float = 0.5,
        color_jitter: float = 0.25,
        blur: float = 0.5,
        samples_per_epoch: int | None = None,
        cache_gb: float = 1.0,
        windows: bool = False,
        boundary_radius: float = 2,
        boundary_variant: Literal["paper", "release"] = "paper",
    ) -> None:
        super().__init__()
        sizes = {"batch_size": batch_size, "val_batch_size": val_batch_size, "samples_per_epoch": samples_per_epoch}
        for name, value in sizes.items():
            if value is not None:
                check_count(name, value, 1)
        for name, value in {"num_workers": num_workers, "seed": seed}.items():
            if value is not None:
                check_count(name, value, 0)
        if not is_number(cache_gb, 0):
            raise SettingError(f"cache_gb must be a number of 0 or more, got {cache_gb!r}")
        check_augmentation(crop_size, scale, class_uniform, flip, color_jitter, blur)
        check_class_names(classes.names)
        self.num_classes = len(classes)
        self.class_names = classes.names
        self.class_colors = classes.colors
        self.ignore_index = IGNORE_INDEX
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.augmentation: dict[str, Any] = {
            "crop_size": crop_size,
            "scale": scale,
            # Over the data, the sampler decides what a crop is centred on.
            "class_uniform": class_uniform if class_uniform_over == "frame" else 0.0,
            "flip": flip,
            "color_jitter": color_jitter,
            "blur": blur,
        }
        if class_uniform_over not in ("frame", "data"):
            raise SettingError(f"class_uniform_over must be 'frame' or 'data', got {class_uniform_over!r}")
        self.class_uniform = class_uniform
        self.class_uniform_over = class_uniform_over
        self.samples_per_epoch = samples_per_epoch
        self.cache_gb = cache_gb
        if windows and crop_size is None:
            raise SettingError("windows reads what a crop needs, and crop_size is None: give one, or leave windows out")
        if windows and importlib.util.find_spec("tifffile") is None:
            raise SettingError("windows needs tifffile: pip install 'gscnn-lightning[tiles]', or leave it out")
        self.windows = windows
        if boundary_variant not in ("paper", "release"):
            raise SettingError(f"boundary_variant must be 'paper' or 'release', got {boundary_variant!r}")
        if not is_number(boundary_radius, 1):
            raise SettingError(f"boundary_radius must be 1 or more, got {boundary_radius!r}")
        self.boundary_radius = boundary_radius
        self.boundary_variant = boundary_variant
        self.datasets: dict[Split, SegmentationDataset] = {}
        self._sources: dict[Split, Source] = {}
        self._tiles_of: tuple[Source, ClassTiles] | None = None

    def source(self, split: Split) -> Source:
        """The frames of a split, see `Source`.

        Raises:
            DataError: the data are missing or cannot be used.
        """
        raise NotImplementedError(f"{type(self).__name__} must define source(split)")

    def prepare_data(self) -> None:
        """Build the index of class-uniform sampling in one process before the others look for it in the cache."""
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            self._tiles()

    def setup(self, stage: str | None = None) -> None:
        """Find and check the frames of a stage.

        Args:
            stage: "fit", "validate", "test", "predict" or None for all.

        Raises:
            DataError: the data are missing or cannot be used.
        """
        stages: dict[str | None, tuple[Split, ...]] = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": ("predict",),
            None: ("train", "val", "test", "predict"),
        }
        for split in stages[stage]:
            if split not in self.datasets:
                self.datasets[split] = self._dataset(split)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled, augmented, full batches only.

        Raises:
            DataError: an epoch has fewer samples than one step of all devices.
        """
        dataset, (rank, world) = self._ready("train"), self._process()
        step = self.batch_size * world
        samples = self.samples_per_epoch or len(dataset)
        if samples < step:
            raise DataError(
                f"an epoch of {samples} training samples cannot fill one step of {world} x batch size "
                f"{self.batch_size}: lower batch_size, or repeat samples with samples_per_epoch of at least {step}"
            )
        # What does not fill a step opens the next epoch.
        sampler = TrainSampler(
            dataset,
            samples - samples % step,
            self.seed,
            num_replicas=world,
            rank=rank,
            class_uniform=self.class_uniform,
            tiles=self._tiles(),
            progress=self._progress,
        )
        return self._loader(dataset, sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader[Sample]:
        """Whole validation frames in order."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        """Whole test frames in order."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Sample]:
        """Whole frames to predict in order, with or without labels."""
        return self._eval_loader("predict")

    def on_after_batch_transfer(self, batch: Sample, dataloader_idx: int) -> Sample:
        """Add the boundary map of a batch that has labels, on the device."""
        if "mask" in batch:
            batch["boundary"] = self.boundaries(batch["mask"]).unsqueeze(1)  # (B, 1, H, W)
        return batch

    def boundaries(self, labels: Labels) -> Labels:
        """Boundary maps of label maps, array or tensor, by the settings of this module; see `label_boundaries`."""
        if self.boundary_variant == "release":
            return label_boundaries(labels, self.boundary_radius, self.ignore_index, void="boundary", frame=True)
        return label_boundaries(labels, self.boundary_radius, self.ignore_index)

    def _dataset(self, split: Split) -> SegmentationDataset:
        source = self.checked_source(split)
        if split != "predict":
            read = self._deciding_labels if self.windows and split == "train" else type(source).load_labels
            check_labelled(split, (read(source, index) for index in range(len(source))))
        if split != "train":
            return SegmentationDataset(source)
        from gscnn_lightning.data.transforms import training_transform  # slow to import, needed for training only

        whole: list[int] = []
        if self.windows:
            whole = [index for index in range(len(source)) if source.open_windows(index) is None]
            if whole:
                missing = (
                    "; imagecodecs is not installed, which those in LZW and Zstandard need: pip install "
                    "'gscnn-lightning[tiles]'"
                    if importlib.util.find_spec("imagecodecs") is None
                    else ""
                )
                rank_zero_info(
                    f"{split}: {len(whole)} of {len(source)} images are decoded as a whole, the first is "
                    f"{source.name(whole[0])}: windows are read of TIFF files of 8 bits without lossy compression"
                    f"{missing}"
                )
        kept = None
        if self.cache_gb and can_keep() and not (self.windows and len(whole) < len(source)):
            world = self._process()[1]
            kept = KeptFrames(source, self.cache_gb, _told_to_all if world > 1 and _is_connected() else None)
            if self._process()[0] == 0 and (said := kept.said()):
                rank_zero_info(f"train: {said}")
        return SegmentationDataset(source, training_transform(**self.augmentation), self.seed, kept, self.windows)

    @staticmethod
    def _deciding_labels(source: Source, index: int) -> Bytes | None:
        """The first part of a label map that has a labelled pixel, else any: all of it may not fit into memory."""
        windows = source.open_windows(index)
        if windows is None:
            return source.load_labels(index)
        height, width = windows.shape
        part: Bytes | None = None
        for top, left in itertools.product(range(0, height, _PART), range(0, width, _PART)):
            part = windows.labels(top, left, min(top + _PART, height), min(left + _PART, width))
            if (part != IGNORE_INDEX).any():
                break
        return part

    def checked_source(self, split: Split) -> Source:
        """The frames of a split after their `Source.check`, the same object every time.

        Raises:
            DataError: the data are missing or cannot be used.
        """
        if split not in self._sources:
            source = self.source(split)
            if not isinstance(source, Source):
                raise SettingError(
                    f"{type(self).__name__}.source gives a {type(source).__name__}: derive it from "
                    "gscnn_lightning.data.Source"
                )
            source.check()
            if not len(source):
                raise DataError(f"the {split} split of {type(self).__name__} is empty: check its path and settings")
            for note in source.notes:
                rank_zero_info(f"{split}: {note}")
            self._sources[split] = source
        return self._sources[split]

    def class_shares(self) -> list[float]:
        """Share of every class among the labelled pixels of the training split, see :func:`class_shares`.

        Raises:
            DataError: a label map cannot be read, or there is nothing but void.
        """
        return class_shares(self.checked_source("train"), self.num_classes, with_bar=self._process()[0] == 0)

    def _tiles(self) -> ClassTiles | None:
        """Index of the classes of the training split, None unless it is sampled."""
        if self.class_uniform_over != "data" or self.class_uniform == 0:
            return None
        source = self.checked_source("train")
        if self._tiles_of is None or self._tiles_of[0] is not source:  # of a million frames it takes seconds
            self._tiles_of = source, class_tiles(source, with_bar=self._process()[0] == 0)
        return self._tiles_of[1]

    def _progress(self) -> int:
        """Samples that this process already had of the epoch that the trainer is about to begin or to resume."""
        trainer = self.trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING or trainer.state.status != TrainerStatus.RUNNING:
            return 0
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        return batches.processed * self.batch_size

    def _ready(self, split: Split) -> SegmentationDataset:
        if split not in self.datasets:
            self.datasets[split] = self._dataset(split)
        return self.datasets[split]

    def _process(self) -> tuple[int, int]:
        """Rank and number of processes, (0, 1) without a trainer."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _eval_loader(self, split: Split) -> DataLoader[Sample]:
        dataset, (rank, world) = self._ready(split), self._process()
        if len(dataset) < world:
            raise DataError(
                f"{len(dataset)} {split} frames cannot occupy {world} processes: use at most {len(dataset)} devices"
            )
        return self._loader(dataset, EvalSampler(dataset, num_replicas=world, rank=rank), self.val_batch_size)

    def _loader(self, dataset: SegmentationDataset, sampler: Sampler[Any], batch_size: int) -> DataLoader[Sample]:
        workers = self._workers()
        kind = ResumableLoader if isinstance(sampler, TrainSampler) else DataLoader
        return kind(
            dataset,
            batch_size=batch_size,  # by keyword, or Lightning cannot rebuild the loader for prediction
            sampler=sampler,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=begin_work,
            collate_fn=_batch,
            # Its own, or a validation would draw from the random numbers of the training.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        devices = 1 if self.trainer is None else self.trainer.num_devices
        per_device = cores // devices
        return min(4, per_device) if per_device > 1 else 0


def _is_connected() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _told_to_all(offer: Offer) -> list[Offer]:
    """What all processes offer, by rank; every process has to call it."""
    offers: list[Offer | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(offers, offer)
    return [other for other in offers if other is not None]


def _batch(samples: list[Sample]) -> Sample:
    """Samples of one size as a batch.

    Raises:
        DataError: their sizes differ, as those of whole frames may.
    """
    first = samples[0]
    for sample in samples:
        sizes = [part["image"].shape[1:] for part in (first, sample)]
        if sizes[0] != sizes[1]:
            one, other = (f"{width}x{height}" for height, width in sizes)
            raise DataError(
                f"{first['name']} is {one} pixels and {sample['name']} {other}, which cannot be one batch: give "
                "--data.val_batch_size 1, or for training crops of one size (--data.crop_size)"
            )
    batch: Sample = default_collate(samples)
    return batch


def check_labelled(split: str, label_maps: Iterable[Labels | None]) -> None:
    """Raise if there is nothing but void in the label maps of a split; reads no more of them than it has to.

    Args:
        split: what the message calls it.
        label_maps: train ids (H, W) each, 255 for void; None of an unlabelled frame.

    Raises:
        DataError: every pixel of every label map is void.
    """
    number = 0
    for labels in label_maps:
        if labels is None or bool((labels != IGNORE_INDEX).any()):
            return
        number += 1
    if number:
        raise DataError(nothing_but_void(split, number))


def nothing_but_void(split: str, number: int) -> str:
    """What is said of a split with that many label maps and not one labelled pixel."""
    return (
        f"{split}: all {number} label maps are void throughout: there is nothing to learn from or to score. Check the "
        "values in the class table against those in the maps, or give labels that are not withheld"
    )


def begin_work(_: int) -> None:
    """What a loading process does first."""
    # Every process already has its core; OpenCV would start as many threads again in each.
    cv2.setNumThreads(0)
    # Ctrl-C reaches all processes of a terminal, and the training then finishes its step with the batches that come;
    # it ends its loading processes itself, by a signal that they must not have inherited a handler of.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A training that is killed while it takes a batch hangs up on the thread that hands it over, and is no one to tell.
    before = sys.excepthook
    sys.excepthook = lambda kind, *rest: None if issubclass(kind, ConnectionError | EOFError) else before(kind, *rest)
