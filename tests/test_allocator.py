import os
import subprocess
import sys

import pytest

# Pages that a second large array of the same size needs, after the first was freed.
PROGRAM = """
import resource
import numpy as np
from gscnn_lightning.allocator import keep_memory
print(keep_memory())
np.ones(750_000, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(750_000, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(environment):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()
    return result[0] == "True", int(result[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the GNU C library alone")
def test_pages_of_a_freed_array_serve_the_next():
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    kept, fresh = pages(plain)
    assert kept
    assert fresh < 100
    kept, fresh = pages({**plain, "MALLOC_MMAP_THRESHOLD_": "1048576"})
    assert not kept
    assert fresh > 500
