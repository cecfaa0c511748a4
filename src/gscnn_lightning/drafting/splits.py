"""Which frames train and which validate: as the data say it, or chosen so that it is always the same."""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gscnn_lightning.data.files import walk
from gscnn_lightning.data.splits import held_out
from gscnn_lightning.drafting.pictures import SPLITS, Pair, split_of
from gscnn_lightning.errors import DataError

SHARE = 0.2
"""Share of the frames that validate where nothing says which."""

_FRAME = re.compile(r"[_\-. ]?[A-Za-z]{0,2}\d+$")
_LARGEST = 64 << 20


class Splits(dict[str, list[Pair]]):
    """Frames by split, and in `told` where that comes from; in `assumed` what was assumed, one sentence each."""

    told = ""
    assumed: tuple[str, ...] = ()


def split_pairs(root: Path, pairs: Sequence[Pair], setting: str) -> Splits:
    """Frames by split: by folders, by lists that lie there, or by their names.

    Args:
        root: folder of the data.
        pairs: frames with masks.
        setting: where the user corrects it, for messages.

    Raises:
        DataError: there are too few frames.
    """
    if len(pairs) < 2:
        raise DataError(
            f"{root} has one image with a mask, {pairs[0].image}: two are needed at least, to train and to validate"
        )
    by_folder = Splits({split: [pair for pair in pairs if pair.split == split] for split in SPLITS})
    if by_folder["train"] and sum(map(len, by_folder.values())) == len(pairs):
        by_folder.told = "by folders"
        return _with_validation(root, by_folder, setting)
    listed = _by_lists(root, pairs)
    if listed is not None:
        return _with_validation(root, listed, setting)
    made = Splits(train=list(pairs), val=[], test=[])
    return _with_validation(root, made, setting)


def _with_validation(root: Path, splits: Splits, setting: str) -> Splits:
    """The same with some of the training frames to validate on, if there are none."""
    if splits["val"]:
        return splits
    if splits["test"] and not splits["val"] and len(splits["train"]) < 2:
        splits["val"] = splits["test"]
        return splits
    if len(splits["train"]) < 2:
        raise DataError(
            f"{root} has {len(splits['train'])} training frames: two are needed, to validate on one of them"
        )
    held, told, assumed = _held_out(root, splits["train"], setting)
    splits["val"] = [pair for pair in splits["train"] if pair in held]
    splits["train"] = [pair for pair in splits["train"] if pair not in held]
    splits.told = f"{splits.told}, val {told}" if splits.told else told
    splits.assumed = (assumed,)
    return splits


def _held_out(root: Path, pairs: Sequence[Pair], setting: str) -> tuple[set[Pair], str, str]:
    names = {pair: pair.image.relative_to(root).with_suffix("").as_posix() for pair in pairs}
    sequences: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair, name in names.items():
        sequences[_FRAME.sub("", name)].append(pair)
    if len(sequences) >= 3 and len(pairs) >= 3 * len(sequences):
        held = _whole_sequences(sequences, len(pairs))
        chosen = [pair for name in held for pair in sequences[name]]
        shown = ", ".join(sorted(held)[:3]) + (", ..." if len(held) > 3 else "")
        return (
            set(chosen),
            f"made: {len(held)} of {len(sequences)} sequences validate",
            f"names such as {names[pairs[0]]} are those of {len(sequences)} sequences, of which {shown} "
            f"validate{'s' if len(held) == 1 else ''} ({len(chosen)} frames), so that no drive is in both: move lines "
            f"between {setting} to change that",
        )
    by_name = {name: pair for pair, name in names.items()}
    chosen = [by_name[name] for name in held_out(names.values(), SHARE)]
    return (
        set(chosen),
        f"made: {len(chosen)} of {len(pairs)} frames validate",
        f"nothing says which frames validate: {len(chosen)} were chosen by their names, always the same. If they are "
        f"frames of one video, neighbours are in both, and scores too good: move lines between {setting}",
    )


def _whole_sequences(sequences: dict[str, list[Pair]], total: int) -> list[str]:
    """Sequences of about a fifth of the frames, by a digest of their names; never all, and at least one."""
    ordered = sorted(sequences, key=lambda name: hashlib.blake2b(name.encode(errors="surrogateescape")).digest())
    chosen: list[str] = []
    count = 0
    for name in ordered:
        if count + len(sequences[name]) <= 1.5 * SHARE * total:
            chosen.append(name)
            count += len(sequences[name])
        if count >= 0.75 * SHARE * total:
            break
    return chosen or [min(ordered, key=lambda name: len(sequences[name]))]


def _by_lists(root: Path, pairs: Sequence[Pair]) -> Splits | None:
    """Splits by text files called train.txt and the like; None without those that name the frames."""
    by_name: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        relative = pair.image.relative_to(root)
        for name in {pair.image.name, pair.image.stem, relative.as_posix(), relative.with_suffix("").as_posix()}:
            by_name[name].append(pair)
        # Lists of many data sets name a mask beside the image, or nothing else.
        if pair.mask is not None:
            by_name[pair.mask.name].append(pair)
    result, files = Splits({split: [] for split in SPLITS}), []
    for path in sorted(walk(root), key=lambda path: (len(path.parts), path)):
        split, template = split_of(path.stem)
        if path.suffix.lower() not in (".txt", ".csv", ".lst") or not split or result[split] or "*" not in template:
            continue
        rows: list[str] = []
        with suppress(OSError, UnicodeDecodeError):
            if path.is_file() and path.stat().st_size <= _LARGEST:
                rows = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        candidates = [_listed(row, by_name, path.suffix.lower() == ".csv") for row in rows]
        found = [pair for pair in candidates if pair is not None]
        if rows and len(found) >= 0.9 * len(rows):
            result[split] = list(dict.fromkeys(found))
            files.append(path.relative_to(root).as_posix())
    if not result["train"] or len(Counter(pair for split in SPLITS for pair in result[split])) < 2:
        return None
    result.told = f"by {', '.join(files)}"
    return result


def _listed(row: str, by_name: dict[str, list[Pair]], is_csv: bool) -> Pair | None:
    """The frame that a line of a list names, by a path that may begin above the data, or by its name."""
    columns = next(csv.reader([row])) if is_csv else row.split()
    first = columns[0].strip() if columns else ""
    parts = first.replace("\\", "/").lstrip("/").split("/")
    candidates = [row.strip(), *("/".join(parts[start:]) for start in range(len(parts)))]
    return next((by_name[name][0] for name in candidates if len(by_name.get(name, ())) == 1), None)
