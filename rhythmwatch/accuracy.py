"""The accuracy report: figures, the page that shows them, and plots."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rhythmwatch import figures
from rhythmwatch.accuracy_page import page
from rhythmwatch.results import Results


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of an evaluation.

    Attributes
    ----------
    figures : dict
        As written to ``accuracy.json``.
    results : Results
        The records behind them.
    """

    figures: dict[str, Any]
    results: Results

    @classmethod
    def of(cls, results: Results, version: str, models: Path, seconds: float) -> Report:
        """Make the figures.

        Parameters
        ----------
        results : Results
            In order.
        version : str
            Of the models.
        models : Path
            Folder of the models.
        seconds : float
            What the run took.
        """
        head = {"models": version, "run_seconds": round(seconds, 1)}
        return cls(head | figures.of_results(results, models), results)

    def markdown(self, plots: tuple[str, ...] = ()) -> str:
        """Write the page ``accuracy.md``, with links to the plots of these names in ``accuracy/``."""
        return page(self.figures, plots)

    def write(self, folder: Path) -> None:
        """Write ``accuracy.md``, ``accuracy.json`` and the plots below ``accuracy/``.

        Parameters
        ----------
        folder : Path
            Made if it is not there.
        """
        from rhythmwatch.accuracy_plots import draw

        folder.mkdir(parents=True, exist_ok=True)
        plots = draw(self.results, self.figures, folder / "accuracy")
        (folder / "accuracy.md").write_text(self.markdown(plots), encoding="utf-8")
        (folder / "accuracy.json").write_text(json.dumps(self.figures, indent=1) + "\n", encoding="utf-8")
