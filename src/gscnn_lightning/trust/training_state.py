"""The state of a training out of a checkpoint: what Lightning and torch take up as it is, whatever it is."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import torch
from torch import Tensor

from gscnn_lightning.plain import altered, fits, shown
from gscnn_lightning.scores import Scores

_COUNTS = {"ready", "started", "processed", "completed"}
_OF_PARAMETERS = {"momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg", "sum"}
"""States of optimizers that have the shape of their parameter."""


def check_training_state(
    content: Mapping[str, Any], name: str, shapes: Sequence[torch.Size], groups: int, settings: Mapping[str, Any]
) -> None:
    """Raise unless the state of a training is one of the task's optimizer and schedule, as Lightning keeps it.

    Args:
        content: of the checkpoint, with "loops", "optimizer_states" and "lr_schedulers".
        name: what it is called.
        shapes: of the parameters in the order of the optimizer.
        groups: number of groups of parameters.
        settings: arguments of the optimizer.

    Raises:
        WeightsError: something is of another type or shape; the message says where.
    """
    for found in (
        _loops_fault(content["loops"], "loops"),
        _callbacks_fault(content.get("callbacks", {})),
        _optimizer_fault(content["optimizer_states"], shapes, groups, settings),
        _schedule_fault(content["lr_schedulers"], groups),
    ):
        if found:
            raise altered(name, found)


def _loops_fault(value: object, place: str) -> str:
    """What is wrong with counts of epochs and batches, "" if nothing is."""
    last = place.rpartition(".")[2]
    if last == "combined_loader":  # what loaders of the user keep is theirs
        return "" if isinstance(value, list) else f"{place} is {shown(value)}, no list"
    if not isinstance(value, dict):
        is_kept = place.count(".") > 1 and last not in ("total", "current") and not last.endswith("progress")
        return "" if is_kept and fits(value, float | bool | None) else f"{place} is {shown(value)}"
    if last in ("total", "current") and not set(value) <= _COUNTS:
        return f"{place} counts {shown(sorted(map(str, set(value) - _COUNTS))[0])}"
    if last in ("total", "current") and not all(fits(count, int) and count >= 0 for count in value.values()):
        return f"{place} is {shown(value)}, no counts"
    if "is_last_batch" in value and not fits(value["is_last_batch"], bool):
        return f"{place}.is_last_batch is {shown(value['is_last_batch'])}"
    return next((fault for key, part in value.items() if (fault := _loops_fault(part, f"{place}.{key}"))), "")


def _callbacks_fault(states: object) -> str:
    """What is wrong with the states of callbacks."""
    if not isinstance(states, dict) or not all(isinstance(key, str) for key in states):
        return f"callbacks is {shown(states)}, no states by name"
    for key, state in states.items():
        if not isinstance(state, dict):
            return f"callbacks.{key} is {shown(state)}, no state of a callback"
        if key == "RunSummary" and not all(fits(number, float) for number in state.values()):
            return f"callbacks.{key} is {shown(state)}, no sums of an epoch"
        if key == "RunRecord" and not _are_scores(state):
            return f"callbacks.{key} is {shown(state)}, no scores"
        if "best_k_models" not in state:
            continue
        # Lightning removes files that these name.
        folder, kept = state.get("dirpath"), state["best_k_models"]
        if not fits(folder, str | None) or not isinstance(kept, dict):
            return f"callbacks.{key} is {shown(state)}, no state of a callback"
        for path in (*kept, state.get("kth_best_model_path", ""), state.get("last_model_path", "")):
            if not isinstance(path, str) or (path and not _is_below(path, folder)):
                return f"callbacks.{key} names {shown(path)}, which is not in its folder {shown(folder)}"
        scores = [state.get(score) for score in ("best_model_score", "current_score", "kth_value")]
        numbers = (*kept.values(), *(score for score in scores if score is not None))
        last_kept = state.get("kth_best_model_path") or next(iter(kept), "")
        if (
            not isinstance(state.get("best_model_path"), str)
            or not all(isinstance(number, Tensor) and number.numel() == 1 for number in numbers)
            or (kept and last_kept not in kept)
        ):
            return f"callbacks.{key} is {shown(state)}, no state of a callback"
    return ""


def _are_scores(state: Mapping[str, Any]) -> bool:
    """Whether a state is the best scores so far, what chose them, and seconds."""
    best, kinds = state.get("best"), {**get_type_hints(Scores), "confusion": None, "images": list[None]}
    parts = best.items() if isinstance(best, dict) else ()
    is_whole = best is None or (isinstance(best, dict) and {"means", "classes"} <= set(best) <= set(kinds))
    is_chosen = fits(state.get("monitored"), float | None) and fits(state.get("seconds"), float)
    return is_chosen and is_whole and all(fits(value, kinds[name]) for name, value in parts)


def _is_below(path: str, folder: str | None) -> bool:
    if folder is None:
        return False
    inner, outer = os.path.normpath(path), os.path.normpath(folder)
    return inner.startswith(os.path.join(outer, ""))  # noqa: PTH118  # may be an address


def _optimizer_fault(states: object, shapes: Sequence[torch.Size], groups: int, settings: Mapping[str, Any]) -> str:
    """What is wrong with the state of the optimizer."""
    if not isinstance(states, list) or len(states) != 1 or not isinstance(states[0], dict):
        return "optimizer_states is no list of one state"
    state, saved = states[0].get("state"), states[0].get("param_groups")
    if not isinstance(state, dict) or not isinstance(saved, list) or len(saved) != groups:
        return f"optimizer_states[0] has not the {groups} groups of parameters that the network has"
    for index, group in enumerate(saved):
        place = f"optimizer_states[0].param_groups[{index}]"
        if not isinstance(group, dict) or not fits(group.get("params"), list[int]):
            return f"{place} is {shown(group)}"
        for key in ("lr", "initial_lr", *settings):
            own = settings.get(key, 0.0)
            if key in group and own is not None and not _is_alike(group[key], own):
                return f"{place}.{key} is {shown(group[key])}"
    order = [index for group in saved for index in group["params"]]
    if len(order) != len(shapes):
        return f"optimizer_states[0] has {len(order)} parameters, the network {len(shapes)}"
    places = dict(zip(order, shapes, strict=True))
    for index, parts in state.items():
        if not isinstance(parts, dict):
            return f"optimizer_states[0].state[{shown(index)}] is {shown(parts)}"
        for key, value in parts.items():
            if key == "step" and not (fits(value, float) or (isinstance(value, Tensor) and value.numel() == 1)):
                return f"optimizer_states[0].state[{index}].step is {shown(value)}"
            if key in _OF_PARAMETERS and value is not None and getattr(value, "shape", None) != places.get(index):
                return f"optimizer_states[0].state[{index}].{key} has not the shape of its parameter"
    return ""


def _schedule_fault(states: object, groups: int) -> str:
    """What is wrong with the state of the polynomial decay."""
    if not isinstance(states, list) or len(states) > 1:
        return f"lr_schedulers is {shown(states)}, no list of one state"
    for key, value in states[0].items() if states and isinstance(states[0], dict) else ():
        place = f"lr_schedulers[0].{key}"
        if callable(getattr(torch.optim.lr_scheduler.LambdaLR, str(key), None)) or key == "optimizer":
            return f"{place} is no state of a schedule"
        lists = {"base_lrs": list[float | Tensor], "_last_lr": list[float | Tensor], "lr_lambdas": list[None]}
        counts = {"last_epoch": int, "_step_count": int}
        kind = {**lists, **counts}.get(key, float | bool | None)
        if not fits(value, kind) or (key in lists and len(value) != groups):
            return f"{place} is {shown(value)}"
    return "" if not states or isinstance(states[0], dict) else f"lr_schedulers[0] is {shown(states[0])}"


def _is_alike(value: object, own: object) -> bool:
    """Whether two values of a setting are of one kind; None goes with everything."""
    if value is None:
        return True
    if isinstance(own, list | tuple):
        return isinstance(value, list | tuple) and len(value) == len(own) and all(map(_is_alike, value, own))
    if fits(own, float):
        return fits(value, float) or (isinstance(value, Tensor) and value.numel() == 1)
    return isinstance(value, type(own))
