"""Models in files that a notebook can read."""

from odevid.export.load import load, save_model

__all__ = ["load", "save_model"]
