"""Which samples a process sees, in which order: a function of seed, epoch and position only."""

from collections.abc import Callable, Iterator, Sized
from typing import NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler

from gscnn_lightning.data.class_tiles import ClassTiles, Target


class Key(NamedTuple):
    """What the training sampler asks the data set for.

    Attributes:
        turn: number of the pass through the data.
        frame: its index.
        position: place in the endless stream of samples, given together with a target: one pass may draw a frame for
            several targets.
        target: what to centre the crop on, None to leave that to the augmentation.
    """

    turn: int
    frame: int
    position: int | None = None
    target: Target | None = None


class TrainSampler(DistributedSampler):
    """Shuffled training samples of one process, each with the number of its pass through the data.

    The samples form one endless stream of permutations, pass after pass; an epoch is the next `samples_per_epoch` of
    it. So every sample is seen equally often whatever the length of an epoch. What is yielded are keys: they reach the
    data set inside the workers, which can then draw an augmentation that depends on nothing else.

    Being a `DistributedSampler`, it is left alone by Lightning, which calls `set_epoch`.

    Args:
        dataset: anything with a length.
        samples_per_epoch: samples of all processes together, None for the length of `dataset`.
        seed: of the permutations.
        num_replicas: number of processes; the remainder of `samples_per_epoch` is dropped.
        rank: of this process.
        class_uniform: share of the stream that is replaced by crops around a class drawn uniformly from `tiles`.
        tiles: where the classes are.
        progress: asked at the start of every epoch how many of its samples this process already had before it was
            interrupted; they are left out.
    """

    def __init__(
        self,
        dataset: Sized,
        samples_per_epoch: int | None = None,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        class_uniform: float = 0.0,
        tiles: ClassTiles | None = None,
        progress: Callable[[], int] | None = None,
    ) -> None:
        # Of the data set, only the length matters.
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.num_samples = (samples_per_epoch or len(dataset)) // num_replicas
        self.total_size = self.num_samples * num_replicas
        self.class_uniform = class_uniform
        self.tiles = tiles
        self.progress = progress

    def __iter__(self) -> Iterator[Key]:
        length = len(self.dataset)  # type: ignore[arg-type]
        done = 0 if self.progress is None else self.progress()
        begin = self.epoch * self.total_size
        permutation, drawn = np.empty(0, int), -1
        for position in range(begin + self.rank, begin + self.total_size, self.num_replicas)[done:]:
            turn, place = divmod(position, length)
            if self.tiles is not None:
                rng = np.random.default_rng((self.seed, turn, position))
                if rng.random() < self.class_uniform:
                    frame, target = self.tiles.draw(rng)
                    yield Key(turn, frame, position, target)
                    continue
            if turn != drawn:
                permutation, drawn = np.random.default_rng((self.seed, turn)).permutation(length), turn
            yield Key(turn, int(permutation[place]))


class EvalSampler(DistributedSampler):
    """Every num_replicas-th sample in order, without the padding that would count samples twice.

    Processes may therefore have unequal numbers of batches: metrics must be reduced at the end of the epoch, not at
    every step.
    """

    def __init__(self, dataset: Sized, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.num_samples = len(range(rank, len(dataset), num_replicas))
        self.total_size = len(dataset)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.total_size, self.num_replicas))
