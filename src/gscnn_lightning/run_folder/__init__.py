"""The folder of a run: the one place that knows which files are in it and what they are called."""

from dataclasses import dataclass
from pathlib import Path

from gscnn_lightning.errors import SettingError

BEST, LAST = "best", "last"
"""Names of checkpoints without suffix: of the epoch with the best score, and of the last epoch."""


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run, whether they are there or not.

    Args:
        path: folder that ``gscnn-fit`` makes for every call, such as runs/camvid/version_0.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Everything that is needed to start the run again."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """What was logged, as Lightning's ``CSVLogger`` writes it."""
        return self.path / "metrics.csv"

    @property
    def earlier_metrics(self) -> list[Path]:
        """What was logged before a training went on in the same folder, oldest first; see `keep_metrics`."""
        found = (path for path in self.path.glob("metrics_*.csv") if path.stem.rpartition("_")[2].isdigit())
        return sorted(found, key=lambda path: int(path.stem.rpartition("_")[2]))

    @property
    def learning_curves(self) -> Path:
        """Losses, scores and learning rate over steps."""
        return self.path / "learning_curves.png"

    @property
    def lr_search(self) -> Path:
        """Losses by learning rate, of a search before the training."""
        return self.path / "lr_search.png"

    @property
    def contact_sheet(self) -> Path:
        """Photo, labels, prediction, boundaries and gates of the fixed images."""
        return self.path / "contact_sheet.png"

    @property
    def pictures(self) -> Path:
        """Folder with the pictures of single images."""
        return self.path / "pictures"

    def epoch_pictures(self, epoch: int) -> Path:
        """Folder with the pictures of the fixed images after an epoch, counted from 1."""
        return self.pictures / f"epoch_{epoch:03d}"

    @property
    def pictured_epochs(self) -> dict[int, Path]:
        """Folders of pictures by epoch, counted from 1, in order."""
        found = {path.name.partition("_")[2]: path for path in self.pictures.glob("epoch_*") if path.is_dir()}
        return {int(epoch): found[epoch] for epoch in sorted(found, key=lambda e: e.zfill(9)) if epoch.isdigit()}

    @property
    def worst_pictures(self) -> Path:
        """Folder with the pictures of the images with the worst boundaries."""
        return self.pictures / "worst"

    @property
    def image_scores(self) -> Path:
        """Scores of every image."""
        return self.path / "image_scores.csv"

    @property
    def confusion(self) -> Path:
        """Pixels by true and predicted class."""
        return self.path / "confusion_matrix.csv"

    @property
    def confusion_picture(self) -> Path:
        """The confusion matrix as a picture."""
        return self.confusion.with_suffix(".png")

    @property
    def distance_curve(self) -> Path:
        """Mean IoU against the crop factor of the distance-based evaluation."""
        return self.path / "distance_curve.png"

    @property
    def reliability(self) -> Path:
        """Pixels, mean confidence and accuracy by bin of confidence, everywhere and near boundaries."""
        return self.path / "reliability.csv"

    @property
    def reliability_picture(self) -> Path:
        """Accuracy against confidence."""
        return self.reliability.with_suffix(".png")

    def scores(self, stage: str) -> Path:
        """Scores of "val" or "test". That of a training is written when all other files are."""
        return self.path / f"scores_{stage}.json"

    def class_table(self, stage: str) -> Path:
        """Scores of the classes of "val" or "test" as a table."""
        return self.scores(stage).with_suffix(".csv")

    @property
    def environment(self) -> Path:
        """Versions, hardware, command and code."""
        return self.path / "environment.json"

    @property
    def classes(self) -> Path:
        """Names and colours of the classes."""
        return self.path / "classes.json"

    @property
    def predictions(self) -> Path:
        """Folder with the files that ``gscnn-fit predict`` writes."""
        return self.path / "predictions"

    @property
    def best_checkpoint(self) -> Path:
        """Checkpoint of the epoch with the best score."""
        return self.path / "checkpoints" / f"{BEST}.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """Checkpoint of the last epoch, from which a training goes on."""
        return self.path / "checkpoints" / f"{LAST}.ckpt"

    def present(self) -> list[tuple[str, Path]]:
        """What there is to look at, with a label for each."""
        known = [
            ("configuration", self.config),
            ("metrics", self.metrics),
            ("learning curves", self.learning_curves),
            ("learning rates", self.lr_search),
            ("contact sheet", self.contact_sheet),
            ("pictures", self.pictures),
            ("image scores", self.image_scores),
            ("confusion", self.confusion_picture),
            ("distance curve", self.distance_curve),
            ("reliability", self.reliability_picture),
        ]
        return [(label, path) for label, path in known if path.exists()]

    def is_finished(self) -> bool:
        """Whether a training has ended here by itself."""
        return self.scores("val").is_file()

    def keep_metrics(self) -> None:
        """Put aside what was logged: Lightning's logger deletes the metrics that it finds when a training goes on."""
        if self.metrics.is_file():
            self.metrics.rename(self.path / f"metrics_{len(self.earlier_metrics) + 1}.csv")


def run_of_checkpoint(checkpoint: str | Path) -> RunFolder | None:
    """The run that a checkpoint lies in; None if there is no config in its folder or in the one above."""
    runs = (RunFolder(folder) for folder in list(Path(checkpoint).resolve().parents)[:2])
    return next((run for run in runs if run.config.is_file()), None)


def find_run(path: Path) -> RunFolder:
    """The run in a folder.

    Raises:
        SettingError: there is no such folder, or it is no run; the message names a run inside, if there is one.
    """
    if not path.is_dir():
        raise SettingError(f"{path} is no directory: give the folder of a run, such as runs/camvid/version_0")
    run = RunFolder(path)
    if any(file.is_file() for file in (run.metrics, run.scores("val"), run.scores("test"))):
        return run
    metrics, scores = run.metrics.name, run.scores("val").name
    inside = [file.parent for depth in ("*", "*/*") for file in sorted(path.glob(f"{depth}/{metrics}"))]
    hint = f"did you mean {inside[-1]}?" if inside else "give the folder of a run, such as runs/camvid/version_0"
    raise SettingError(f"{path} is no run: it has neither {metrics} nor {scores}; {hint}")
