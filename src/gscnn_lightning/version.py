"""The version of this library, read by its packaging too."""

__version__ = "0.1.0"
