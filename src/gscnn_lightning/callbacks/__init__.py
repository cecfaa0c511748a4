"""Lightning callbacks that report on a run and write its pictures."""

from gscnn_lightning.callbacks.final_validation import FinalValidation
from gscnn_lightning.callbacks.finite_loss import FiniteLoss
from gscnn_lightning.callbacks.interruption import Interruption, Stopped
from gscnn_lightning.callbacks.learning_curves import LearningCurves
from gscnn_lightning.callbacks.network_summary import NetworkSummary
from gscnn_lightning.callbacks.pictures import Pictures
from gscnn_lightning.callbacks.prediction_writer import PredictionWriter
from gscnn_lightning.callbacks.progress import ProgressBar
from gscnn_lightning.callbacks.random_state import RandomState
from gscnn_lightning.callbacks.run_record import RunRecord
from gscnn_lightning.callbacks.run_summary import RunSummary
from gscnn_lightning.callbacks.timed_checkpoint import TimedCheckpoint

__all__ = [
    "FinalValidation",
    "FiniteLoss",
    "Interruption",
    "LearningCurves",
    "NetworkSummary",
    "Pictures",
    "PredictionWriter",
    "ProgressBar",
    "RandomState",
    "RunRecord",
    "RunSummary",
    "Stopped",
    "TimedCheckpoint",
]
