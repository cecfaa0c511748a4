"""Batch normalisation folded into the convolution before it, for networks that are only used."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gscnn_lightning.models.layers import BatchNorm2d

# Exactly these: a class derived from one of them, such as a convolution that standardises its weights, may do more.
_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNorm2d, BatchNormAct2d)

_SIZE = 64
_TOLERANCE = 1e-3


def folded(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode that computes the same numbers without most batch normalisations.

    In evaluation mode batch normalisation is a scale and a shift per channel. Where it gets what a convolution returns,
    and nothing else does, both become part of the convolution. Where that is so is not read off names, but seen in one
    pass of a small image: every operation tells which tensors it takes. A convolution or normalisation that is called
    more than once stays as it is, and so do those after which something else reads the same map, normalisation in front
    of a convolution, and any other kind of normalisation.

    The copy is for prediction only: it has other parameters than the network, and cannot be trained on.

    Args:
        network: in evaluation mode, takes (B, 3, H, W) in [0, 1], returns tensors in tuples, lists or mappings.

    Returns:
        The copy; of the network as it is, should the numbers differ.

    Raises:
        ValueError: the network is in training mode.
    """
    if network.training:
        raise ValueError("the network is in training mode: call eval() first, as folding fixes the statistics")
    result = copy.deepcopy(network).requires_grad_(False)
    like = next((t for t in network.parameters() if t.is_floating_point()), torch.zeros(()))
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, _SIZE, _SIZE, generator=generator).to(like.device, like.dtype)
    with torch.no_grad():
        pairs, before = _pairs(result, image)
        for convolution, norm in pairs:
            _fold(result, convolution, norm)
        after = tree_leaves(result(image))
    if all(_close(a, b) for a, b in zip(after, before, strict=True)):
        return result
    return copy.deepcopy(network).requires_grad_(False)


class _Uses(TorchDispatchMode):
    """Counts how many operations take each tensor; keeps all tensors, so that no two get the same id."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self._kept: list[Any] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Note what the operation takes, then run it."""
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.count.update({id(leaf) for leaf in taken})
        result = func(*args, **(kwargs or {}))
        self._kept += [taken, result]
        return result


def _pairs(network: nn.Module, image: Tensor) -> tuple[list[tuple[nn.Module, nn.Module]], list[Any]]:
    """Convolutions with the normalisation that each can take in, and what the network returns."""
    made_by: dict[int, nn.Module] = {}
    taken: list[tuple[int, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()

    def after_convolution(module: nn.Module, args: Any, output: Tensor) -> None:  # noqa: ANN401
        calls[module] += 1
        made_by[id(output)] = module

    def before_norm(module: nn.Module, args: Any) -> None:  # noqa: ANN401
        calls[module] += 1
        taken.append((id(args[0]), module))

    with ExitStack() as hooks:
        for module in network.modules():
            if type(module) in _CONVOLUTIONS:
                hooks.callback(module.register_forward_hook(after_convolution).remove)
            elif type(module) in _NORMS and module.running_mean is not None:
                hooks.callback(module.register_forward_pre_hook(before_norm).remove)
        with _Uses() as uses:
            output = tree_leaves(network(image))
    returned = {id(leaf) for leaf in output}
    pairs = [
        (made_by[tensor], norm)
        for tensor, norm in taken
        if tensor in made_by and tensor not in returned and uses.count[tensor] == 1
    ]
    return [(c, n) for c, n in pairs if calls[c] == calls[n] == 1], output


def _fold(network: nn.Module, convolution: Any, norm: Any) -> None:  # noqa: ANN401
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    convolution.requires_grad_(False)
    # timm's layer holds the activation, too.
    rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    for parent, name in list(_places(network, norm)):
        setattr(parent, name, rest.eval())


def _places(network: nn.Module, wanted: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in network.modules():
        for name, child in module.named_children():
            if child is wanted:
                yield module, name


def _close(a: Any, b: Any) -> bool:  # noqa: ANN401
    """Whether two results differ by no more than rounding does."""
    if not isinstance(a, Tensor):
        return bool(a == b)
    return bool((a - b).abs().max() <= _TOLERANCE * b.abs().max().clamp(min=1e-6)) if a.numel() else True
