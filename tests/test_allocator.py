import os
import platform
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library alone")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="another allocator may be there instead")
def test_pages_of_a_freed_array_serve_the_next():
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    kept, fresh = pages(plain)
    assert kept
    kept_with_setting, fresh_with_setting = pages({**plain, "MALLOC_MMAP_THRESHOLD_": "1048576"})
    assert not kept_with_setting
    assert 4 * fresh < fresh_with_setting
