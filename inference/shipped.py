"""Where the models lie that come with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped() -> Path:
    """Folder of the shipped ONNX files and their reports."""
    return Path(str(resources.files("inference"))) / "models"
