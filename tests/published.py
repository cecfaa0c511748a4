"""Tensors and names of the published network, as the reference describes them."""

import json
import zlib

import numpy as np
import torch


def fill(key, shape, seed):
    """The stated weight fill: one fresh generator per tensor of the published state dict."""
    rng = np.random.default_rng([zlib.crc32(key.encode()), seed])
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) > 1:
        values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    elif key.endswith(".weight"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def shapes(reference_dir, network="gscnn"):
    """Names and shapes of a published state dict, in its order."""
    entries = json.loads((reference_dir / "state_dict_keys.json").read_text())[network]
    return {entry["key"]: tuple(entry["shape"]) for entry in entries}


def light(shape_by_name):
    """Tensors of these shapes that take no memory, in a file either: one number each, another for every name."""
    return {
        name: torch.tensor(7) if name.endswith("tracked") else torch.full((1,), 0.001 * i).expand(shape)
        for i, (name, shape) in enumerate(shape_by_name.items(), start=1)
    }
