"""``gscnn bench``: measurements side by side, ratios in one run."""

from pathlib import Path


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
