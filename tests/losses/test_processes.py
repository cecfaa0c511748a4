"""The joint loss in two processes with unlike images, against one process that has all of them."""

import subprocess
import sys

PROGRAM = """
import sys
import torch
from torch import distributed as dist
from gscnn_lightning.losses import GSCNNLoss
from gscnn_lightning.losses.dual_task import plain_dual_task
from gscnn_lightning.output import GSCNNOutput

rank, store = int(sys.argv[1]), sys.argv[2]
g = torch.Generator().manual_seed(0)
logits, edges = (torch.randn(4, c, 24, 32, generator=g, dtype=torch.float64) for c in (5, 1))
noise = -torch.empty_like(logits).exponential_(generator=g).log()
labels = torch.randint(5, (4, 3, 4), generator=g).repeat_interleave(8, 1).repeat_interleave(8, 2)
labels[0, :16] = 255  # void in unequal amounts, one image of nothing else
labels[3] = 255
boundaries = torch.zeros(4, 1, 24, 32)
boundaries[0, :, 20:] = boundaries[1, :, ::8] = 1  # and boundaries
edges = edges + 6 * boundaries

def losses(part, weights, variant, sync, compiled):
    loss = GSCNNLoss(5, **weights, variant=variant, sync=sync)
    function = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
    inputs = [x[part].clone().requires_grad_() for x in (logits, edges)]
    terms = function(GSCNNOutput(*inputs, None), labels[part], boundaries[part], noise[part])
    terms["loss"].backward()
    return torch.stack([terms[name].detach() for name in sorted(terms)]), [x.grad for x in inputs]

def plain(part, sync):
    x = logits[part].clone().requires_grad_()
    loss = plain_dual_task(x.log_softmax(1), labels[part], noise[part], 255, 1.0, 4, False, sync)
    loss.backward()
    return loss.detach(), [x.grad, x.grad[:, :1]]

weights = {"dice": 2.0, "edge": 1.0}
everything = slice(0, 4)
# The regularizer of "release" divides by a maximum, which stays that of the own images.
kinds = {"paper": weights, "release": {**weights, "regularizer": 0.0}}
expected = [losses(everything, w, v, False, False) for v, w in kinds.items()] + [plain(everything, False)]
own = slice(2 * rank, 2 * rank + 2)
alone = losses(own, weights, "paper", True, False)[0]  # without other processes: as if not asked for
assert alone.equal(losses(own, weights, "paper", False, False)[0])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
found = [losses(own, w, v, True, False) for v, w in kinds.items()] + [plain(own, True)]
compiled = losses(own, weights, "paper", True, True)
for (value, gradients), (all_values, all_gradients) in zip([*found, compiled], [*expected, expected[0]]):
    torch.testing.assert_close(value, all_values, rtol=1e-12, atol=0)
    for gradient, full in zip(gradients, all_gradients):
        torch.testing.assert_close(gradient / 2, full[own], rtol=1e-10, atol=1e-15)  # as an average over processes
different = losses(own, weights, "paper", False, False)[0]
assert not torch.allclose(different, expected[0][0], rtol=1e-3)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_gloo_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
