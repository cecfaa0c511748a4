"""``gscnn bench``: measurements side by side, ratios in one run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def data(cityscapes: Path | None = None, camvid: Path | None = None, repeats: int = 7) -> None:
    """Measure the data pipeline on real frames, on one core, in ratios to decoding the files.

    Examples:
      gscnn bench data --cityscapes PATH --camvid PATH

    Args:
        cityscapes: folder of Cityscapes, default the environment variable CITYSCAPES_DATASET; left out without both.
        camvid: folder of CamVid, default the environment variable GSCNN_CAMVID_ROOT; left out without both.
        repeats: rounds of each measurement.
    """
    from gscnn_lightning.bench.data import measure_data

    measure_data(cityscapes, camvid, repeats)


def shards(
    config: str | None = None,
    roots: Sequence[str] = (),
    workers: Sequence[int] = (0, 1),
    repeats: int = 5,
    simulated_frames: int = 0,
    others: Sequence[str] = (),
) -> None:
    """Measure shards beside the files that they were packed from, or a set of made names without pixels.

    Examples:
      gscnn bench shards --config cityscapes --data.root PATH --roots [shards,s3://bucket/shards]
      gscnn bench shards --simulated-frames 1000000

    Args:
        config: config of gscnn-fit that names the files.
        roots: folders, or s3://BUCKET/FOLDER, that gscnn data pack wrote of them.
        workers: numbers of loading processes.
        repeats: rounds of each measurement.
        simulated_frames: number of made names of a simulation, which needs no data; 0 for none.
        others: those of gscnn-fit that are about data, such as --data.root PATH.

    Raises:
        GSCNNError: there is nothing to measure, or the data cannot be used.
    """
    from gscnn_lightning.bench.shards import measure_scale, measure_shards
    from gscnn_lightning.errors import SettingError

    if simulated_frames:
        measure_scale(simulated_frames)
        return
    if config is None or not roots:
        raise SettingError("nothing to measure: give --config and --roots, or --simulated-frames")
    measure_shards(config, roots, workers, repeats, others)


def metrics(
    labels: Path | None = None,
    tolerances: tuple[int, ...] = (2, 5, 9, 12),
    distance: int = 46,
    reach: float = 3.0,
    repeats: int = 3,
    threads: int = 1,
) -> None:
    """Time boundary F-score and Boundary IoU of one label map, beside plain SciPy.

    The prediction is the label map itself, displaced by a smooth random field. All formulations must give the same
    scores, or there is an error instead of a table.

    Examples:
      gscnn bench metrics
      gscnn bench metrics --labels frankfurt_000000_000576_gtFine_labelIds.png --repeats 7

    Args:
        labels: official Cityscapes label map (`*_labelIds.png`); by default a drawn street scene of 1024x2048.
        tolerances: tolerances of the boundary F-score in pixels.
        distance: width of the bands of Boundary IoU in pixels; 46 is 2 % of the diagonal of 1024x2048.
        reach: typical displacement of the prediction in pixels.
        repeats: number of timed rounds.
        threads: threads of torch and OpenCV.

    Raises:
        DataError: the label map cannot be read.
    """
    from gscnn_lightning.bench.metrics import measure_metrics

    measure_metrics(labels, tolerances, distance, reach, repeats, threads)


def score(labels: Path, /, frames: int = 20, reach: float = 3.0, threads: int = 1) -> None:
    """Time gscnn score beside the official Cityscapes evaluation, frame by frame in turns.

    Frames are made of the label maps that there are, shifted and mirrored, and predictions of them by displacing them
    by a smooth random field. Mean IoU has to be the same, or there is an error instead of a table.

    Examples:
      gscnn bench score CITYSCAPES/gtFine/val
      gscnn bench score CITYSCAPES/gtFine/val --frames 60 --reach 6

    Args:
        labels: folder with official label maps and instance maps, `*_labelIds.png` and `*_instanceIds.png`.
        frames: number of frames.
        reach: typical displacement of the predictions in pixels.
        threads: threads of torch and OpenCV.

    Raises:
        GSCNNError: there are no such files, or the official scripts are not installed.
    """
    from gscnn_lightning.bench.score import measure_score

    measure_score(labels, frames, reach, threads)


def tracking(config: str = "camvid", epochs: int = 7) -> None:
    """Time the epochs of a training, every second one with W&B (offline), pictures and records.

    Every epoch has a validation, and every epoch that is tracked makes its pictures, which a training does ten times in
    all. The first epoch warms up. The run itself is not kept.

    Examples:
      gscnn bench tracking
      gscnn bench tracking --config scenes

    Args:
        config: config of gscnn-fit; it finds its data by itself, as by GSCNN_CAMVID_ROOT.
        epochs: number of epochs in all, 3 or more; an odd number makes pairs.

    Raises:
        SettingError: there are too few epochs.
    """
    from gscnn_lightning.bench.tracking import measure_tracking

    measure_tracking(config, epochs)


def step(
    size: tuple[int, int, int] | None = None,
    device: str = "auto",
    precision: Literal["config", "32-true", "bf16-mixed", "16-mixed"] = "config",
    threads: int | None = None,
    repeats: int = 7,
    compile: bool = False,
    out: Path | None = None,
    compare: Path | None = None,
    others: Sequence[str] = (),
) -> None:
    """Time a whole training step beside that of the network without shape stream and of a plain DeepLabV3+.

    A step is forward pass, losses, backward pass, clipping and optimizer, of the network, losses and optimizer that
    gscnn-fit would make of the same arguments; weights are random, images and labels drawn, so that no data are needed.
    Steps follow each other as in a training, in memory that the process keeps. Where segmentation_models_pytorch can be
    imported, its DeepLabV3Plus on the same encoder has a row, too, trained with cross-entropy. GFLOP/s count
    convolutions and matrix products, beside the fastest that one large convolution reaches on this machine.

    Examples:
      gscnn bench step
      gscnn bench step --config cityscapes --device cuda --compile true --out step.json
      gscnn bench step --config camvid --config network/paper --model.backbone resnet50 --size [4,192,256]
      gscnn bench step --compare step.json

    Args:
        size: number of images, height and width, default the config's batch size and crop.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is.
        precision: config is that of the config, which is gscnn-fit's own for this machine unless it names one.
        threads: threads of torch, default as many as it takes by itself.
        repeats: number of timed rounds.
        compile: time compiled steps (torch.compile), too; compiling them takes minutes on a CPU.
        out: JSON file for machine, settings and all numbers.
        compare: JSON file of an earlier measurement, shown beside the new one.
        others: those of gscnn-fit, such as --config FILE (default camvid) and --model.backbone resnet50.

    Raises:
        SettingError: a setting cannot be used.
    """
    from gscnn_lightning.bench.step import measure_step

    measure_step(others, size, device, precision, threads, repeats, compile, out, compare)


def losses(
    sides: tuple[int, ...] = (192, 384, 768),
    batch: int = 1,
    device: str = "auto",
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true",
    threads: int | None = None,
    repeats: int = 7,
    compile: bool = False,
    out: Path | None = None,
    compare: Path | None = None,
) -> None:
    """Time all losses with their gradient, beside torch's cross-entropy of the same logits.

    Labels are those of a drawn street scene in 19 classes with a void band at the bottom, logits those of a network
    that is mostly right. The joint losses share what their terms have in common, so that they take less time than the
    terms, each of which is timed alone, unweighted. Losses follow each other as in a training, in memory that the
    process keeps.

    Examples:
      gscnn bench losses
      gscnn bench losses --sides [256,1024] --batch 4 --compile true

    Args:
        sides: height and width of the maps in pixels.
        batch: number of images.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is.
        precision: of the training whose logits these are.
        threads: threads of torch, default as many as it takes by itself.
        repeats: number of timed rounds.
        compile: time compiled joint losses (torch.compile), too.
        out: JSON file for machine, settings and all numbers.
        compare: JSON file of an earlier measurement, shown beside the new one.

    Raises:
        SettingError: a setting cannot be used.
    """
    from gscnn_lightning.bench.losses import measure_losses

    measure_losses(sides, batch, device, precision, threads, repeats, compile, out, compare)


def inference(
    size: tuple[int, int] = (512, 1024),
    formats: Literal["config", "contiguous", "channels_last", "both"] = "config",
    device: str = "auto",
    precision: Literal["config", "32-true", "bf16-mixed", "16-mixed"] = "config",
    threads: int | None = None,
    repeats: int = 7,
    out: Path | None = None,
    compare: Path | None = None,
    others: Sequence[str] = (),
) -> None:
    """Time the logits of one image beside those of the network without shape stream and of a plain DeepLabV3+.

    Networks are those that gscnn-fit would train with the same arguments, with random weights, in evaluation mode and
    without gradient; the image is drawn. Where segmentation_models_pytorch can be imported, its DeepLabV3Plus on the
    same encoder has a row, too.

    Examples:
      gscnn bench inference
      gscnn bench inference --config cityscapes --size [1024,2048] --formats both --out inference.json

    Args:
        size: height and width of the image in pixels.
        formats: memory formats of weights and image; both has a row for each.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is.
        precision: config is that of the config, which is gscnn-fit's own for this machine unless it names one.
        threads: threads of torch, default as many as it takes by itself.
        repeats: number of timed rounds.
        out: JSON file for machine, settings and all numbers.
        compare: JSON file of an earlier measurement, shown beside the new one.
        others: those of gscnn-fit, such as --config FILE (default camvid) and --model.backbone resnet50.

    Raises:
        SettingError: a setting cannot be used.
    """
    from gscnn_lightning.bench.inference import measure_inference

    measure_inference(others, size, formats, device, precision, threads, repeats, out, compare)


def predict(
    networks: Sequence[str],
    /,
    size: tuple[int, int] = (512, 1024),
    pictures: int = 8,
    runtimes: Sequence[Literal["onnxruntime", "openvino", "tensorrt"]] = ("onnxruntime",),
    compiled: bool = False,
    threads: int | None = None,
    repeats: int = 5,
    out: Path | None = None,
    compare: Path | None = None,
) -> None:
    """Time checkpoints and exported networks, alone and with the reading and writing of gscnn predict, on the CPU.

    Examples:
      gscnn bench predict best.ckpt model.onnx
      gscnn bench predict best.ckpt model.onnx small.onnx --runtimes [onnxruntime,openvino] --threads 1

    Args:
        networks: checkpoints, networks of a hub and files of gscnn export; the first is what the ratios refer to.
        size: height and width of the pictures, which are drawn.
        pictures: number of pictures that are read, predicted and written.
        runtimes: that run each .onnx file, where they are installed.
        compiled: also checkpoints through torch.compile, alone; needs a C++ compiler, and minutes.
        threads: threads of the networks, default as many as torch takes by itself.
        repeats: number of timed rounds.
        out: JSON file for machine, settings and all numbers.
        compare: JSON file of an earlier measurement, shown beside the new one.

    Raises:
        GSCNNError: a setting or a network cannot be used.
    """
    from gscnn_lightning.bench.predict import measure_predict

    measure_predict(networks, size, pictures, runtimes, compiled, threads, repeats, out, compare)


def loop(
    batches: int = 20,
    device: str = "auto",
    precision: Literal["config", "32-true", "bf16-mixed", "16-mixed"] = "config",
    threads: int | None = None,
    repeats: int = 5,
    out: Path | None = None,
    compare: Path | None = None,
    others: Sequence[str] = (),
) -> None:
    """Time the steps of gscnn-fit, with its callbacks and logger, beside a bare loop over the same batches.

    Short trainings and bare loops take turns; timed is what lies between the start of the second batch and the end of
    the last one of an epoch: loading, step, schedule, and with gscnn-fit all that Lightning does in between. Both start
    from the same random weights, and their losses of the last batch are printed. The trainings are not kept.

    Examples:
      gscnn bench loop
      gscnn bench loop --config camvid --batches 40 --out loop.json

    Args:
        batches: length of an epoch in batches, 3 or more.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is.
        precision: config is that of the config, which is gscnn-fit's own for this machine unless it names one.
        threads: threads of torch, default as many as it takes by itself.
        repeats: epochs of either loop, after one of each to warm up.
        out: JSON file for machine, settings and all numbers.
        compare: JSON file of an earlier measurement, shown beside the new one.
        others: those of gscnn-fit, such as --config FILE (default scenes) and --data.root PATH.

    Raises:
        SettingError: a setting cannot be used.
    """
    from gscnn_lightning.bench.loop import measure_loop

    measure_loop(others, batches, device, precision, threads, repeats, out, compare)
