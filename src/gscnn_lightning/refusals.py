"""What Lightning, torch and this library refuse while a command runs, in the words of the settings that caused it."""

import dis
import errno
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from gscnn_lightning.errors import GSCNNError, SettingError, TrainingError

_LENGTH = 400
_NAMES = {"pytorch_lightning": "Lightning", "lightning_fabric": "Lightning", "torch": "torch"}
# Where settings of the user end up, and are looked at by somebody else.
_PLACES = ("pytorch_lightning", "lightning_fabric", "lightning_utilities", "torch.optim", "torch.utils", "torch.cuda")
_REFUSALS = (ValueError, TypeError, RuntimeError, AttributeError, KeyError, ImportError, OSError)
_NO_PLACE = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def refusal(
    error: BaseException, settings: Mapping[str, Any], defaults: Mapping[str, Any], given: Collection[str] = ()
) -> GSCNNError | None:
    """What an exception says to the user; None if it is no refusal but a bug, whose traceback is wanted.

    A refusal is an exception of this library, a `MisconfigurationException` of Lightning's, or one that Lightning, or
    the part of torch that settings are handed to, has raised on purpose: by ``raise``, not by an operation that failed.
    A `ValueError` of this library's own is one, too, and so is what the machine refuses: memory, or a loading process.

    Args:
        error: what was raised.
        settings: nested settings that ran, as in a config.
        defaults: the same, without what the user has set.
        given: dotted names of the settings on the command line, where mistakes are more likely than in a config.
    """
    chain = list(_causes(error))
    usual, flat = dict(_flat(defaults)), dict(_flat(settings))
    known = next((cause for cause in chain if isinstance(cause, GSCNNError)), None)
    if known is not None:
        return _with_full_name(known, flat)
    for cause in chain:
        trouble = _trouble(cause)
        if trouble is not None:
            return trouble
    # Settings of classes of the user's choice have no known default.
    candidates = {
        name: (value, (name in given) + 0.5 * (name in usual))
        for name, value in flat.items()
        if value not in (None, "") and (name not in usual or usual[name] != value)
    }
    words: SettingError | None = next((found for c in reversed(chain) if (found := _in_words(c, candidates))), None)
    return words


def _trouble(error: BaseException) -> TrainingError | None:
    """What the machine has refused, and which settings ask less of it; None if it is something else."""
    reason = " ".join(str(error).split())
    killed = re.search(
        r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\) (?:is killed by signal: ([\w ]+)|exited unexp)", reason
    )
    if killed is not None:
        by = f" by the system ({killed[1]})" if killed[1] else ""
        less = "lower --data.num_workers (0 loads without such processes) or --data.cache_gb"
        if killed[1] == "Bus error":
            less = f"shared memory is full: start the container with a larger one (--shm-size=8g), or {less}"
        return TrainingError(f"a loading process was ended{by}: {less}")
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        file = error.filename or _file_of(error.__traceback__) or "a file"
        return TrainingError(f"cannot read or write {file} ({error.strerror}): make room, or choose another place")
    on_device = isinstance(error, torch.OutOfMemoryError)
    if on_device or isinstance(error, MemoryError) or "can't allocate memory" in reason:
        where = "of the device" if on_device else "of the machine"
        return TrainingError(
            f"the memory {where} did not suffice ({reason[:_LENGTH]}). In training, lower --data.batch_size or "
            "--data.crop_size, or give --model.grad_checkpointing true or --trainer.precision bf16-mixed; in "
            "validation, give --model.window [512,512]"
        )
    return None


def _with_full_name(error: GSCNNError, settings: Collection[str]) -> GSCNNError:
    """The error with the name that a setting has on the command line, where its message begins with the last part."""
    message = str(error)
    words = message.partition(" ")[0]
    names = [name for name in settings if name.endswith(f".{words}")]
    if not isinstance(error, SettingError) or len(names) != 1 or f"--{names[0]}" in message:
        return error
    return SettingError(f"{message} (--{names[0]})")


def _in_words(error: BaseException, settings: Mapping[str, tuple[Any, float]]) -> SettingError | None:
    """One exception in the words of what the user has set: values with how likely they are meant; None if a bug."""
    if isinstance(error, OSError) and error.errno in _NO_PLACE and error.filename is not None:
        file = error.filename2 or error.filename  # where a file was to be moved to
        where = _other_place(Path(file).absolute(), settings)
        return SettingError(f"cannot write {file} ({error.strerror}): {where}")
    place = _raised_in(error)
    ours = place.startswith("gscnn_lightning") and isinstance(error, ValueError)
    theirs = isinstance(error, _REFUSALS) and any(place == name or place.startswith(name + ".") for name in _PLACES)
    if not (ours or theirs or isinstance(error, MisconfigurationException)):
        return None
    reason = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    reason = (reason if len(reason) <= _LENGTH else reason[:_LENGTH] + " ...").rstrip(".! ")
    callback = _callback(error.__traceback__)
    own = ("trainer.callbacks", "trainer.max_time", "checkpoint") if callback is not None else ("",)
    name = _setting(reason, {name: value for name, value in settings.items() if name.startswith(own)})
    if name is not None:
        return SettingError(f"{name} is {settings[name][0]}: {reason}. Correct --{name}, or leave it out")
    if place.startswith("torch.optim") and "optimizer.class_path" in settings:
        optimizer = settings["optimizer.class_path"][0]
        return SettingError(f"optimizer is {optimizer}: {reason}. Correct its settings, or choose another")
    if callback is not None:
        return SettingError(f"callback {callback} of trainer.callbacks: {reason}. Correct its settings, or drop it")
    if ours:
        return SettingError(reason)
    who = _NAMES.get(place.partition(".")[0], "Lightning")
    return SettingError(f"{who} refuses the settings: {reason}. `gscnn-fit fit --help` says what each one takes")


def _other_place(path: Path, settings: Mapping[str, tuple[Any, float]]) -> str:
    """What to do where a file or folder cannot be made: the setting that it lies below."""
    names = (name for name in settings if name.endswith(("dir", "dirpath")))
    folders = {name: Path(settings[name][0]).absolute() for name in names}
    found = [name for name in folders if path.is_relative_to(folders[name])]
    deepest = max(found, key=lambda name: len(folders[name].parts), default=None)
    return "make room, or give the right to" if deepest is None else f"choose another --{deepest}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from: a parser that has tried every type of a setting lists all of them."""
    while error is not None:
        yield error
        error = error.__cause__


def _raised_in(error: BaseException) -> str:
    """Module whose ``raise`` an exception comes from; "" if it comes from an operation that failed."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    on_purpose = 0 <= trace.tb_lasti < len(code) and dis.opname[code[trace.tb_lasti]] == "RAISE_VARARGS"
    return str(trace.tb_frame.f_globals.get("__name__", "")) if on_purpose else ""


def _callback(trace: TracebackType | None) -> str | None:
    """Name of the callback within which an exception was raised."""
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, Callback):
            return type(owner).__name__
        trace = trace.tb_next
    return None


def _file_of(trace: TracebackType | None) -> Path | None:
    """What the innermost function that has a path was about, as an error in the middle of writing has no name."""
    found = None
    while trace is not None:
        path = trace.tb_frame.f_locals.get("path")
        found = path if isinstance(path, Path) else found
        trace = trace.tb_next
    return found


def _setting(reason: str, settings: Mapping[str, tuple[Any, float]]) -> str | None:
    """Name of the setting that a message is most likely about: its name, its value or both are in it."""
    words = set(re.findall(r"[A-Za-z_]\w*", reason))
    found: dict[str, float] = {}
    for name, (value, likely) in settings.items():
        text = str(value)
        is_said = re.search(rf"(?<![\w.]){re.escape(text)}(?![\w.])", reason) is not None
        last = name.rpartition(".")[2]
        if last in words and (is_said or likely):
            is_argument = re.search(rf"\b{last}=['\"]?{re.escape(text)}(?!\w)", reason) is not None
            found[name] = 2 + is_said + 2 * is_argument + likely
        elif is_said and len(text) > 1 and not text.isdecimal() and not isinstance(value, bool):
            found[name] = 1 + likely
    return max(found, key=found.__getitem__, default=None)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted name on the command line, which leaves ``init_args`` out."""
    for key, value in settings.items():
        inner = prefix if key in ("init_args", "dict_kwargs") else f"{prefix}{key}."
        parts = value if isinstance(value, list) and value and isinstance(value[0], Mapping) else [value]
        for part in parts:
            if isinstance(part, Mapping):
                yield from _flat(part, inner)
            else:
                yield inner[:-1], part
