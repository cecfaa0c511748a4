"""What the machine refuses; what settings cause is tested through the command line in test_cli."""

import pytest
import torch

from gscnn_lightning.errors import TrainingError
from gscnn_lightning.refusals import refusal


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("DataLoader worker (pid 34) is killed by signal: Bus error. It is possible that dataloader's"),
            ["a loading process was ended by the system (Bus error)", "--shm-size=8g", "--data.num_workers"],
        ),
        (
            RuntimeError("DataLoader worker (pid 34) is killed by signal: Killed. "),
            ["a loading process was ended by the system (Killed): lower --data.num_workers"],
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 34, 35) exited unexpectedly"),
            ["a loading process was ended: lower --data.num_workers"],
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
            ["the memory of the device did not suffice", "--data.batch_size", "--model.window"],
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            ["the memory of the machine did not suffice", "--data.crop_size"],
        ),
    ],
)
def test_trouble_of_the_machine_names_the_settings_that_ask_less_of_it(error, words):
    outer = RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")
    outer.__cause__ = error
    for raised in (error, outer):
        found = refusal(raised, {}, {})
        assert isinstance(found, TrainingError)
    for word in words:
        assert word in str(refusal(error, {}, {}))


def test_other_errors_are_bugs():
    assert refusal(RuntimeError("shape mismatch"), {}, {}) is None
    assert refusal(IndexError("list index out of range"), {}, {}) is None
