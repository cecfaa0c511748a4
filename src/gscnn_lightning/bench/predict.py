"""``gscnn bench predict``: networks alone, and with everything that ``gscnn predict`` does around them."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor

from gscnn_lightning.bench import check_repeats, time_side_by_side
from gscnn_lightning.bench.machine import torch_threads
from gscnn_lightning.bench.record import BenchRecord
from gscnn_lightning.bench.subjects import check_size, drawn_frames
from gscnn_lightning.checkpoint import load_predictor
from gscnn_lightning.errors import SettingError
from gscnn_lightning.exporting.runtimes import Runtime, is_exported
from gscnn_lightning.inference import predict_logits
from gscnn_lightning.prediction.files import PredictionFiles
from gscnn_lightning.prediction.inputs import Input
from gscnn_lightning.prediction.predictor import Predictor
from gscnn_lightning.task import check_compiler

_PER_SECOND = "pictures_per_second"


class _Network(NamedTuple):
    """A row: what predicts, and whether it is compiled first, which ``gscnn predict`` does not do."""

    predictor: Any
    compiled: bool = False


def measure_predict(
    networks: Sequence[str],
    size: tuple[int, int],
    pictures: int,
    runtimes: Sequence[Runtime],
    compiled: bool,
    threads: int | None,
    repeats: int,
    out: Path | None,
    compare: Path | None,
) -> None:
    """Print the tables of ``gscnn bench predict``.

    Args:
        networks: checkpoints and exported files; the first is what the ratios refer to.
        size: height and width of the pictures, which are drawn.
        pictures: number of pictures that are read, predicted and written.
        runtimes: that run each .onnx file.
        compiled: also the checkpoints compiled, alone.
        threads: None for as many as torch takes.
        repeats: number of timed rounds.
        out: JSON file to write.
        compare: JSON file to compare with.

    Raises:
        SettingError: a setting cannot be used.
        GSCNNError: a network cannot be used.
    """
    check_repeats(repeats)
    check_size(size)
    if not networks or pictures < 1 or not runtimes:
        raise SettingError(
            f"{len(networks)} networks, {pictures} pictures and {len(runtimes)} runtimes: give one of each at least"
        )
    settings = {"networks": list(networks), "size": size, "pictures": pictures, "runtimes": list(runtimes)}
    settings["repeats"] = repeats
    cpu = torch.device("cpu")
    with torch_threads(threads):
        record = BenchRecord("predict", settings, cpu, "32-true", out, compare)
        rows = _rows(networks, runtimes, compiled)
        classes = len(next(iter(rows.values())).predictor.class_names)
        frames = drawn_frames(min(pictures, 4), *size, classes)[0]
        alone: dict[str, Callable[[], object]] = {n: partial(_alone(row), frames[:1]) for n, row in rows.items()}
        side = f"{size[0]}x{size[1]}"
        timings = time_side_by_side(alone, repeats, fresh=False)
        record.add(f"network alone, one picture of {side}", timings, next(iter(alone)), {})
        with tempfile.TemporaryDirectory() as folder:
            inputs = _written(frames, pictures, Path(folder))
            whole: dict[str, Callable[[], object]] = {
                name: partial(_predict, row.predictor, inputs, Path(folder, "out"))
                for name, row in rows.items()
                if not row.compiled
            }
            found = time_side_by_side(whole, repeats, fresh=False)
        title = f"{pictures} pictures of {side}, read, predicted, label maps written"
        record.add(title, found, next(iter(whole)), {})
        for name, timing in found.items():
            rate = pictures / timing.seconds
            share = timings[name].seconds * rate
            record.keep(_PER_SECOND, name, rate)
            record.remark(name, share, f"{name}: {rate:.2f} pictures per second, {100 * share:.0f} % of network alone")
        record.save()


def _rows(networks: Sequence[str], runtimes: Sequence[Runtime], compiled: bool) -> dict[str, _Network]:
    """Every network with everything that runs it, by the name to show."""
    rows: dict[str, _Network] = {}
    for path in networks:
        if path.lower().endswith(".onnx"):
            for runtime in runtimes:
                rows[f"{path}, {runtime}"] = _Network(load_predictor(path, "cpu", runtime=runtime))
            continue
        # As ``gscnn predict`` has it: batch normalisation folded into convolutions.
        rows[path] = _Network(load_predictor(path, "cpu", fold=True))
        if compiled and not is_exported(path):
            check_compiler(torch.device("cpu"))
            rows[f"{path}, compiled"] = _Network(load_predictor(path, "cpu", fold=True), compiled=True)
    return rows


def _alone(row: _Network) -> Callable[[Tensor], Tensor]:
    """Labels of pictures, as ``gscnn predict`` has a network make them."""
    if not row.compiled:
        return torch.inference_mode()(lambda image: row.predictor.predict_output(image, gates=False).labels)
    network = torch.compile(row.predictor.network)

    def labels(image: Tensor) -> Tensor:
        return predict_logits(network, image, None, gates=False).labels

    return torch.inference_mode()(labels)


def _written(frames: Tensor, number: int, folder: Path) -> list[Input]:
    """Files of the frames, again from the first where there are more files than frames."""
    inputs = []
    for index in range(number):
        path = folder / f"{index}.png"
        picture = frames[index % len(frames)].permute(1, 2, 0).numpy()
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        inputs.append(Input(path, path.stem))
    return inputs


def _predict(network: Any, inputs: Sequence[Input], out: Path) -> None:  # noqa: ANN401
    files = PredictionFiles(out, network.class_names, network.class_colors, ("labels",), overwrite=True)
    failed = Predictor(network, files).run(inputs)
    if failed:
        raise SettingError(failed[0])
