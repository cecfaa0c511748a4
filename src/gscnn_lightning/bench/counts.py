"""What a computation needs, counted on one call: floating-point operations, and memory kept for the backward pass."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

T = TypeVar("T")


def counted_flop(function: Callable[[], T]) -> tuple[int, T]:
    """Floating-point operations of one call, the backward pass included if the call has one, and what it returned.

    Two per multiply-add of a convolution or matrix product; all else (element-wise operations, resizes, losses) is not
    counted, nor is what is inside of compiled code.

    Args:
        function: what is called, once.
    """
    mapping = {torch.ops.aten.convolution_backward: _flop_of_gradients}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        result = function()
    return counter.get_total_flops(), result


def _flop_of_gradients(
    out: list[int],
    image: list[int],
    weight: list[int],
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    wanted: Sequence[bool],
    **_: Any,  # noqa: ANN401
) -> int:
    """As many as the forward pass for the gradient of the image, and for that of the weights.

    torch's own rule takes the gradient of a grouped convolution's weights for that of a dense one.
    """
    return conv_flop_count(image, weight, out, transposed) * sum(wanted[:2])


def saved_bytes(forward: Callable[[], T], parameters: Iterable[Tensor]) -> tuple[int, T]:
    """Bytes that a forward pass keeps for the backward pass, every storage once, and what it returned.

    Args:
        forward: the forward pass, called once.
        parameters: tensors that are there anyway and do not count.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    return sum(sizes.values()), result
