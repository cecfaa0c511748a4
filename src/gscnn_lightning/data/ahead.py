"""Many calls in threads, a few of them ahead of the results that are taken."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")

_AHEAD = 4


def results_in_order(function: Callable[[int], _Result], indices: Iterable[int], threads: int) -> Iterator[_Result]:
    """Results of a function in the order of its arguments.

    `ThreadPoolExecutor.map` would begin with an object in memory for every one of perhaps a million calls. What a call
    raises is raised here, and calls that have not begun then never do.

    Args:
        function: what is called, in threads.
        indices: its arguments.
        threads: number of threads.

    Example:
        >>> list(results_in_order(lambda index: 2 * index, range(3), threads=2))
        [0, 2, 4]
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for index in indices:
                waiting.append(pool.submit(function, index))
                if len(waiting) > _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
