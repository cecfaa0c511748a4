"""What a run logged, as numbers: the metrics file of Lightning's ``CSVLogger``."""

import csv

import numpy as np

from gscnn_lightning.drawing.plots import Series
from gscnn_lightning.errors import DataError
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.score_names import class_of_iou


def read_metrics(run: RunFolder) -> tuple[dict[str, Series], float]:
    """Each numeric column against its steps, and the number of steps per epoch.

    Args:
        run: the run. What was kept of an interrupted training, ``metrics_1.csv`` and so on, comes first; of a step
            that is in two files, the later one counts.

    Raises:
        DataError: a file cannot be read or is damaged.
    """
    try:
        rows = []
        for path in (*run.earlier_metrics, run.metrics):
            with path.open(newline="", encoding="utf-8") as file:
                rows += list(csv.DictReader(file))
        columns: dict[str, dict[float, float]] = {}
        for row in rows:
            for key, value in row.items():
                if value and key != "step":
                    # Lightning appends "_step" to what is logged per step and per epoch at once; a class may end so.
                    name = key if class_of_iou(key.partition("/")[2]) else key.removesuffix("_step")
                    columns.setdefault(name, {})[float(row["step"])] = float(value)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(f"{run.metrics} is not a metrics file of Lightning's CSVLogger: {error!r}") from error
    series: dict[str, Series] = {}
    for key, points in columns.items():
        steps, values = np.array(sorted(points.items())).T
        series[key] = steps, values
    steps, epochs = series.get("epoch", (np.zeros(1), np.zeros(1)))
    return series, float(steps.max() + 1) / float(epochs.max() + 1)


def logged_values(run: RunFolder, name: str) -> list[float]:
    """Every value that a training has logged so far under a name, oldest first.

    Args:
        run: the run; one that has logged nothing yet has no values.
        name: such as "val/miou".
    """
    if not run.metrics.is_file():
        return []
    with run.metrics.open(newline="", encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
