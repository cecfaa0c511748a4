"""What a run logged, as numbers: the metrics file of Lightning's ``CSVLogger``."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gscnn_lightning.errors import DataError

Series = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Steps and values of one logged quantity."""


def read_metrics(metrics_csv: Path) -> tuple[dict[str, Series], float]:
    """Each numeric column against its steps, and the number of steps per epoch.

    Args:
        metrics_csv: file written by Lightning's ``CSVLogger``. What ``gscnn ablate`` kept of an interrupted training,
            ``metrics_1.csv`` and so on beside it, comes first; of a step that is in two files, the later one counts.

    Raises:
        DataError: the file cannot be read or is damaged.
    """
    try:
        rows = []
        for path in (*sorted(metrics_csv.parent.glob("metrics_[0-9]*.csv"), key=_number), metrics_csv):
            with path.open(newline="") as file:
                rows += list(csv.DictReader(file))
        columns: dict[str, dict[float, float]] = {}
        for row in rows:
            for key, value in row.items():
                if value and key != "step":
                    # Lightning appends "_step" to what is logged per step and per epoch at once.
                    columns.setdefault(key.removesuffix("_step"), {})[float(row["step"])] = float(value)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(f"{metrics_csv} is not a metrics file of Lightning's CSVLogger: {error!r}") from error
    series: dict[str, Series] = {}
    for key, points in columns.items():
        steps, values = np.array(sorted(points.items())).T
        series[key] = steps, values
    steps, epochs = series.get("epoch", (np.zeros(1), np.zeros(1)))
    return series, float(steps.max() + 1) / float(epochs.max() + 1)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def running_mean(values: npt.NDArray[np.float64], radius: int) -> npt.NDArray[np.float64]:
    """Mean over a centred window, narrower at the ends instead of padded.

    Args:
        values: (N,) numbers.
        radius: neighbours on either side, >= 0.

    Example:
        >>> import numpy as np
        >>> running_mean(np.array([0.0, 3.0, 6.0, 0.0]), 1).tolist()
        [0.0, 3.0, 3.0, 0.0]
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, index[::-1]), radius)
    return (total[index + half + 1] - total[index - half]) / (2 * half + 1)
