"""Which samples a process sees, in which order: a function of seed, epoch and position only."""

from collections.abc import Iterator, Sized

import numpy as np
from torch.utils.data import DistributedSampler


class TrainSampler(DistributedSampler):
    """Shuffled training samples of one process, each with the number of its pass through the data.

    The samples form one endless stream of permutations, pass after pass; an epoch is the next `samples_per_epoch` of
    it. So every sample is seen equally often whatever the length of an epoch. What is yielded are pairs (pass, index):
    they reach the data set inside the workers, which can then draw an augmentation that depends on nothing else.

    Being a `DistributedSampler`, it is left alone by Lightning, which calls `set_epoch`.

    Args:
        dataset: anything with a length.
        samples_per_epoch: samples of all processes together, None for the length of `dataset`.
        seed: of the permutations.
        num_replicas: number of processes; the remainder of `samples_per_epoch` is dropped.
        rank: of this process.
    """

    def __init__(
        self, dataset: Sized, samples_per_epoch: int | None = None, seed: int = 0, num_replicas: int = 1, rank: int = 0
    ) -> None:
        # Of the data set, only the length matters.
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.num_samples = (samples_per_epoch or len(dataset)) // num_replicas
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[tuple[int, int]]:
        length = len(self.dataset)  # type: ignore[arg-type]
        begin = self.epoch * self.total_size
        permutation, drawn = np.empty(0, int), -1
        for position in range(begin + self.rank, begin + self.total_size, self.num_replicas):
            turn, place = divmod(position, length)
            if turn != drawn:
                permutation, drawn = np.random.default_rng((self.seed, turn)).permutation(length), turn
            yield turn, int(permutation[place])


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
