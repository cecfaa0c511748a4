"""Memory that stays with the process: large arrays whose pages are not asked of the system again at every step."""

import ctypes
import os
import sys

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_memory() -> bool:
    """Let the C library keep the memory that is freed, instead of handing it back to the system.

    Every large map of a training step is otherwise mapped anew, page by page, which takes longer than
    computing it. The process keeps its peak until it ends, and so does every process that it forks. Where the
    environment says how memory is allocated (``MALLOC_...`` or ``GLIBC_TUNABLES``) nothing is changed, nor on systems
    without the GNU C library. An allocator that is preloaded, such as jemalloc, is not affected.

    Returns:
        Whether memory is kept from now on.
    """
    if not sys.platform.startswith("linux"):
        return False
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, -1) == 1
