"""Lightning callbacks that report on a run and write its pictures."""

from gscnn_lightning.callbacks.contact_sheet import ContactSheet
from gscnn_lightning.callbacks.learning_curves import LearningCurves
from gscnn_lightning.callbacks.network_summary import NetworkSummary
from gscnn_lightning.callbacks.prediction_writer import PredictionWriter
from gscnn_lightning.callbacks.progress import ProgressBar
from gscnn_lightning.callbacks.run_summary import RunSummary

__all__ = [
    "ContactSheet",
    "LearningCurves",
    "NetworkSummary",
    "PredictionWriter",
    "ProgressBar",
    "RunSummary",
]
