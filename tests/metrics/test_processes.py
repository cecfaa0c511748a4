"""Metrics in two processes that see unequal numbers of images, against one process."""

import subprocess
import sys

PROGRAM = """
import sys
import numpy as np
import torch
from tests.metrics.maps import blobs
from gscnn_lightning.data.samplers import EvalSampler
from gscnn_lightning.metrics import (BoundaryFScore, BoundaryIoU, BoundaryODS, CalibrationError, CityscapesScores,
                                     DistanceCropIoU, SegmentationScores, TrimapIoU)

rank, store = int(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(0)
preds, target = blobs(rng, (7, 40, 60), 19), blobs(rng, (7, 40, 60), 19, 255)
prob, boundary = torch.from_numpy(rng.random((7, 40, 60))), torch.from_numpy(rng.integers(0, 2, (7, 40, 60)))
shares = torch.from_numpy(rng.normal(size=(7, 19, 40, 60)).astype(np.float32)).softmax(1)
instances = target * 1000 + 13000  # train ids 11 to 18 become 24 to 31

def scores(indices):
    metrics = {
        BoundaryFScore(19, [1, 3], average="none"): (preds, target), BoundaryIoU(19, average="none"): (preds, target),
        BoundaryODS(1): (prob, boundary), CalibrationError(): (shares, target),
        CityscapesScores(): (preds, target, instances),
        DistanceCropIoU(19): (preds, target), SegmentationScores(19): (preds, target),
        TrimapIoU(19, [1, 2]): (preds, target)}
    for batch in [indices[i : i + 2] for i in range(0, len(indices), 2)]:
        for metric, inputs in metrics.items():
            metric.update(*(x[batch] for x in inputs))
    results = [metric.compute() for metric in metrics]
    return [v for r in results for v in (r.values() if isinstance(r, dict) else [r])]

one = scores(list(range(7)))
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
own = list(EvalSampler(range(7), num_replicas=2, rank=rank))
assert len(own) == 4 - rank
two = scores(own)
assert len(one) == len(two) > 15
for a, b in zip(one, two):
    assert a.nan_to_num(9).equal(b.nan_to_num(9)), (a, b)
torch.distributed.barrier()
torch.distributed.destroy_process_group()  # its threads would end an interpreter that exits before them
"""


def test_two_gloo_processes_equal_one_to_the_bit(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
