"""One or several runs as one HTML page that needs nothing else."""

from gscnn_lightning.report.page import is_report, render_report

__all__ = ["is_report", "render_report"]
