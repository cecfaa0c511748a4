"""``gscnn report``: one or several runs as one HTML file that needs nothing else."""

from gscnn_lightning.report.page import render_report
from gscnn_lightning.report.run import Run, load_run, load_runs

__all__ = ["Run", "load_run", "load_runs", "render_report"]
