"""``gscnn score`` beside the official Cityscapes evaluation, on frames made of real label maps."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gscnn_lightning.bench import Timing, check_repeats, print_table
from gscnn_lightning.bench.metrics import displaced
from gscnn_lightning.data.cityscapes import FROM_ID
from gscnn_lightning.data.files import find_files
from gscnn_lightning.data.pictures import read_map
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.prediction.files import official_ids
from gscnn_lightning.terminal import progress, say

_OURS, _OFFICIAL = "gscnn_lightning, all scores", "cityscapesscripts, IoU and iIoU"


def measure_score(labels: Path, frames: int, reach: float, threads: int) -> None:
    """Print the table of ``gscnn bench score``.

    Args:
        labels: folder with official label maps and instance maps.
        frames: number of frames to make of them.
        reach: typical displacement of the predictions in pixels.
        threads: threads of torch and OpenCV.

    Raises:
        DataError: there are no label maps with instance maps, or the two programs do not agree.
        SettingError: cityscapesscripts is not installed.
    """
    import torch

    check_repeats(frames)
    try:
        official = import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    except ImportError as error:
        raise SettingError("the official scripts are not installed: pip install cityscapesscripts") from error
    from gscnn_lightning.metrics.evaluation import Evaluation
    from gscnn_lightning.scoring.folder import Frames, PredictedFolder
    from gscnn_lightning.scoring.truth import truth_of_folder

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    with tempfile.TemporaryDirectory() as folder:
        truth_files, pred_files = make_frames(labels, Path(folder), frames, reach)
        truth = truth_of_folder(Path(folder, "truth"), "cityscapes")
        predicted = PredictedFolder(Path(folder, "predictions"), truth, "ids")
        evaluation = Evaluation(truth.classes.names, truth.ignore_index, (3, 5, 9, 12), everything=True)
        ours = Frames(predicted, evaluation, predicted.measurable(), stop_at_problems=False)
        theirs = _Official(official)
        times: dict[str, list[float]] = {_OURS: [], _OFFICIAL: []}
        read, total = 0.0, None
        for _ in range(2):  # to warm up
            ours[0]
            theirs.add(truth_files[0], pred_files[0])
        theirs.forget()
        with progress(frames, "frames") as advance:
            for place in range(frames):
                turns: list[tuple[str, Callable[[], Any]]] = [
                    (_OURS, partial(ours.__getitem__, place)),
                    (_OFFICIAL, partial(theirs.add, truth_files[place], pred_files[place])),
                ]
                for name, function in turns[:: 1 if place % 2 else -1]:
                    start = time.perf_counter()
                    result = function()
                    times[name].append(time.perf_counter() - start)
                    if name == _OURS:
                        read += result.read_seconds
                        state = {key: torch.from_numpy(value) for key, value in result.state.items()}
                        total = state if total is None else {key: total[key] + value for key, value in state.items()}
                advance()
        assert total is not None
        evaluation.reset()
        own, other = evaluation.compute_from(total).means["miou"], theirs.miou()
    if abs(own - other) > 1e-9:
        raise DataError(f"mean IoU is {own} here and {other} by the official script")
    timings = {name: Timing(tuple(rounds), None) for name, rounds in times.items()}
    print_table(f"{frames} frames of 1024x2048, one after the other in turns", timings, _OFFICIAL)
    share = read / sum(times[_OURS])
    say(f"mean IoU equal to 1e-9; reading and decoding are {100 * share:.0f} % of ours; {threads} threads")


def make_frames(labels: Path, out: Path, number: int, reach: float) -> tuple[list[str], list[str]]:
    """Frames out of a few: shifted to the side by ever more, every other one mirrored; predictions displaced.

    Args:
        labels: folder with official label maps and instance maps.
        out: where to write.
        number: of frames.
        reach: typical displacement of the predictions in pixels.

    Returns:
        Files of the label maps, and of the predictions in official ids.

    Raises:
        DataError: there are no label maps with instance maps.
    """
    pairs = [(path, Path(str(path).replace("_labelIds", "_instanceIds"))) for path in find_files(labels).values()]
    found = [pair for pair in pairs if pair[0] != pair[1] and pair[1].is_file()]
    if not found:
        raise DataError(f"no *_labelIds.png with *_instanceIds.png in {labels}: give a folder of gtFine")
    files: tuple[list[str], list[str]] = ([], [])
    for index in range(number):
        maps = [read_map(path) for path in found[index % len(found)]]
        turn = index // len(found)
        moved = [np.roll(pixels, 97 * turn, axis=1)[:, :: -1 if turn % 2 else 1] for pixels in maps]
        pred = official_ids(displaced(FROM_ID[moved[0]], reach, seed=index))
        name = f"made_{index:06d}_000000"
        paths = [out / f"truth/{name}_gtFine_{kind}.png" for kind in ("labelIds", "instanceIds")]
        paths.append(out / f"predictions/{name}_leftImg8bit.png")
        for path, pixels in zip(paths, (*moved, pred), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.ascontiguousarray(pixels))
        files[0].append(str(paths[0]))
        files[1].append(str(paths[2]))
    return files


class _Official:
    """The official evaluation, pair by pair."""

    def __init__(self, script: Any) -> None:  # noqa: ANN401
        self.script = script
        # NumPy has dropped a name that the script uses.
        vars(np).setdefault("in1d", np.isin)
        self.forget()

    def forget(self) -> None:
        self.confusion = self.script.generateMatrix(self.script.args)
        self.instances = self.script.generateInstanceStats(self.script.args)

    def add(self, truth: str, pred: str) -> None:
        self.script.evaluatePair(pred, truth, self.confusion, self.instances, {}, self.script.args)

    def miou(self) -> float:
        args = self.script.args
        labels = {label: self.script.id2label[label].name for label in args.evalLabels}
        scores = {name: self.script.getIouScoreForLabel(label, self.confusion, args) for label, name in labels.items()}
        return float(self.script.getScoreAverage(scores, args))
