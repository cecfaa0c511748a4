"""What a side of a comparison may be: a checkpoint, an exported network, a run, a folder of label maps, or several."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gscnn_lightning.checkpoint import load_predictor, read_checkpoint
from gscnn_lightning.errors import SettingError
from gscnn_lightning.exporting.network import ExportedNetwork
from gscnn_lightning.exporting.runtimes import Runtime, is_exported
from gscnn_lightning.hub_files import is_hub_model
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.scoring.codings import Coding
from gscnn_lightning.scoring.folder import PredictedFolder, folder_states
from gscnn_lightning.scoring.truth import Truth
from gscnn_lightning.studies.comparison import Side, State, image_states
from gscnn_lightning.terminal import say


def members_of(given: str) -> tuple[str, ...]:
    """Checkpoints and folders of a side: one, or several separated by commas; of runs, their best checkpoint.

    Raises:
        SettingError: a part is empty, or a folder has scores and nothing that can be measured.
    """
    parts = [given] if Path(given).exists() else given.split(",")
    if not all(part.strip() for part in parts):
        raise SettingError(f"side {given!r} has an empty part: write checkpoints or folders, separated by commas")
    return tuple(_member(part.strip()) for part in parts)


def _member(given: str) -> str:
    run = RunFolder(Path(given))
    if is_hub_model(given) or not run.path.is_dir():
        ExportedNetwork(given) if is_exported(given) else read_checkpoint(given)
        return given
    for checkpoint in (run.best_checkpoint, run.last_checkpoint):
        if checkpoint.is_file():
            read_checkpoint(str(checkpoint))
            return str(checkpoint)
    if any(path.is_file() for path in (run.metrics, run.scores("val"), run.scores("test"))):
        inside = f": did you mean {run.predictions}?" if run.predictions.is_dir() else ""
        raise SettingError(
            f"{given} has neither checkpoints nor label maps, and scores cannot be drawn from anew: give the folder of "
            f"the label maps{inside}"
        )
    return given


def is_network(member: str) -> bool:
    """Whether a member is a checkpoint, an exported network or one of a hub; else it is a folder of label maps."""
    return is_hub_model(member) or not Path(member).is_dir()


def make_side(
    members: Sequence[str],
    truth: Truth,
    data: Any,  # noqa: ANN401
    split: str,
    settings: Mapping[str, Any],
    device: str,
    runtime: Runtime | None,
    coding: Coding | None,
    resize: bool,
    workers: int,
) -> Side:
    """A side, nothing of which is measured yet; what a folder has is found out, and said.

    Args:
        members: from `members_of`.
        truth: the frames.
        data: the data module, for checkpoints.
        split: which frames of it, "val" or "test".
        settings: windows, scales and flips of checkpoints.
        device: what they are predicted on.
        runtime: that runs exported networks.
        coding: of folders.
        resize: whether label maps of folders are brought to the size of the labels.
        workers: number of processes for folders.

    Raises:
        DataError: a folder cannot be used.
    """

    def of_checkpoint(path: str) -> Any:  # noqa: ANN401
        # Checkpoints beside them are run by torch all the same.
        used = runtime if path.lower().endswith(".onnx") else None

        def states(evaluation: Evaluation) -> Sequence[State]:
            # One network at a time, however many there are.
            return image_states(load_predictor(path, device, runtime=used, **settings), evaluation, data, split)

        return states

    def of_folder(path: str) -> Any:  # noqa: ANN401
        predicted = PredictedFolder(Path(path), truth, coding, resize)
        for note in predicted.notes:
            say(f"note: {note}", stderr=True)
        return lambda evaluation: folder_states(predicted, evaluation, workers)

    made = [of_checkpoint(member) if is_network(member) else of_folder(member) for member in members]
    return Side(tuple(members), tuple(made))
