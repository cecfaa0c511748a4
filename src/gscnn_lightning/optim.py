"""The paper's optimizer and schedule as pure functions: parameter groups, warm-up, polynomial decay."""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from gscnn_lightning.checks import check_not_negative
from gscnn_lightning.errors import SettingError

SGD: dict[str, Any] = {
    "class_path": "torch.optim.SGD",
    "init_args": {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
}
"""The paper's optimizer; the learning rate is for a total batch of 16."""


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    backbone_lr_scale: float = 1.0,
    layer_scales: Mapping[str, float] | None = None,
    fresh: Collection[str] = (),
    without_decay: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Groups for an optimizer: the backbone's learning rate scaled, no decay of biases and normalisation scales.

    Args:
        parameters: names and parameters of a network; those of the backbone begin with "backbone.", and those that are
            not trained are left out.
        lr: learning rate of everything but the backbone.
        backbone_lr_scale: the backbone's as a multiple of it.
        layer_scales: further factors of single parameters of the backbone by their names, see `Backbone.layer_scales`;
            1 of those that are not in it.
        fresh: names of parameters of the backbone that are trained with the rate of everything else.
        without_decay: names of parameters that do not decay, although they are no vectors.

    Raises:
        ValueError: a number is negative or not finite, or parameters come without names.
    """
    check_not_negative("lr", lr.item() if isinstance(lr, Tensor) else lr)
    check_not_negative("backbone_lr_scale", backbone_lr_scale)
    layer_scales = {} if layer_scales is None else layer_scales
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for pair in [parameters] if isinstance(parameters, nn.Module) else parameters:
        if not isinstance(pair, tuple):
            raise SettingError(
                f"parameters has a {type(pair).__name__} in it: give names and parameters (network.named_parameters())"
            )
        name, parameter = pair
        if parameter.requires_grad:
            in_backbone = name.startswith("backbone.") and name not in fresh
            decays = parameter.ndim > 1 and name not in without_decay
            groups.setdefault((in_backbone, decays, layer_scales.get(name, 1.0)), []).append(parameter)
    return [
        {
            "params": members,
            "lr": lr * (backbone_lr_scale if in_backbone else 1) * scale,
            **({} if decays else {"weight_decay": 0.0}),
        }
        for (in_backbone, decays, scale), members in groups.items()
    ]


def warmup(step: int, warmup_steps: int) -> float | None:
    """Factor of the learning rate in a linear warm-up; None once it is over.

    Args:
        step: optimizer step, from 0.
        warmup_steps: length of the warm-up, >= 0.

    Raises:
        ValueError: a number is negative or not finite.

    Example:
        >>> warmup(0, 3), warmup(2, 3), warmup(3, 3)
        (0.25, 0.75, None)
    """
    check_not_negative("step", step)
    check_not_negative("warmup_steps", warmup_steps)
    return (step + 1) / (warmup_steps + 1) if step < warmup_steps else None


def poly_decay(step: int, warmup_steps: int, total_steps: float, power: float) -> float:
    """Factor ``(1 - progress) ** power`` of the learning rate after the warm-up; 0 at the end.

    Source: Takikawa et al., Gated-SCNN, ICCV 2019, section 4.1, where the power is 0.9.

    Args:
        step: optimizer step, from ``warmup_steps`` on.
        warmup_steps: steps before the decay begins, >= 0.
        total_steps: steps of the training, warm-up included; infinite for none.
        power: exponent, >= 0.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> poly_decay(0, 0, 10, 0.9), poly_decay(5, 0, 10, 1.0), poly_decay(10, 0, 10, 0.9)
        (1.0, 0.5, 0.0)
    """
    for name, number in (("step", step), ("warmup_steps", warmup_steps), ("power", power)):
        check_not_negative(name, number)
    if total_steps != math.inf:
        check_not_negative("total_steps", total_steps)
    if step < warmup_steps:
        raise SettingError(f"step {step} is within the warm-up of {warmup_steps} steps: use warmup for it")
    progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return (1 - progress) ** power
