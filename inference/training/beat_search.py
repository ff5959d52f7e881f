"""Systematic search over the settings of the beat network: Optuna, patient-wise cross-validation, resumable.

The section ``search`` of a configuration names what is varied (``space``, by dotted path), which settings are tried
first (``first``: the comparisons that the documentation quotes), and what is made smaller than in a real training. All
trials lie in an SQLite file; a search that was cut off goes on where it ended. Only DS1 and svdb are used.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import torch

from dsp.qrs import QrsWeights
from inference import qrs_model
from inference.training.beat_checkpoint import key
from inference.training.beat_cv import Whole, choose_bias, cross_report, whole
from inference.training.beat_fit import Rows
from inference.training.beat_rows import Name, gather
from inference.training.beats import cross_validate, patients

STUDY = "search.db"
TABLE = "search.md"


def changed(config: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Copy a configuration with other values at dotted paths.

    Raises
    ------
    ValueError
        If a path is not in the configuration.
    """
    result = copy.deepcopy(config)
    for path, value in values.items():
        *sections, last = path.split(".")
        section = result
        for name in sections:
            section = section.get(name, {})
        if last not in section:
            raise ValueError(f"the search varies {path}, which the configuration doesn't have")
        section[last] = value
    return result


def suggest(trial: optuna.Trial, space: dict[str, Any]) -> dict[str, Any]:
    """Ask a trial for a value of each path of the search space.

    Parameters
    ----------
    trial : optuna.Trial
    space : dict
        By dotted path: ``{low, high}`` with an optional ``log``, or ``{choices}``; lists among the choices are passed
        to Optuna as JSON.

    Returns
    -------
    dict
    """
    values: dict[str, Any] = {}
    for path, kind in space.items():
        if "choices" in kind:
            values[path] = json.loads(trial.suggest_categorical(path, [json.dumps(one) for one in kind["choices"]]))
        else:
            values[path] = trial.suggest_float(path, kind["low"], kind["high"], log=kind.get("log", False))
    return values


def named(config: dict[str, Any], space: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a trial that is the configuration but for some values, as `suggest` names them."""
    result = {}
    for path, kind in space.items():
        value = values.get(path, _at(config, path))
        result[path] = json.dumps(value) if "choices" in kind else value
    return result


def _at(config: dict[str, Any], path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = value[name]
    return value


class _Data:
    """Rows of the patients, made once for each way of making rows; 0.1 GB or so a patient."""

    def __init__(
        self, data_dir: Path, config: dict[str, Any], weights: QrsWeights, progress: Callable[[str], None]
    ) -> None:
        self._data_dir, self._config, self._weights, self._progress = data_dir, config, weights, progress
        self._made: dict[str, tuple[dict[Name, Rows], dict[Name, Whole]]] = {}

    def of(self, settings: dict[str, Any]) -> tuple[dict[Name, Rows], dict[Name, Whole]]:
        """Training rows and whole recordings for a section ``rows``."""
        how = key(settings)
        if how not in self._made:
            chosen = patients(self._data_dir, self._config["every"])
            gathered = gather(self._data_dir, chosen, self._weights, settings, self._config["seed"], self._progress)
            wholes = {name: whole(self._data_dir, name, self._weights, settings["image"]) for name in chosen}
            self._made[how] = gathered, wholes
        return self._made[how]


def search(config_path: Path, data_dir: Path, out: Path, trials: int, progress: Callable[[str], None]) -> optuna.Study:
    """Run trials until there are `trials` of them, those of an earlier run counted.

    Parameters
    ----------
    config_path : Path
        TOML with a section ``search``.
    data_dir : Path
        Folder of the databases.
    out : Path
        Folder of `STUDY` and `TABLE`.
    trials : int
    progress : callable
        Told a line a trial.

    Returns
    -------
    optuna.Study

    Raises
    ------
    ValueError
        If the configuration has no section ``search``, or varies what it doesn't have.
    """
    config = tomllib.loads(config_path.read_text("utf-8"))
    if "search" not in config:
        raise ValueError(f"{config_path} has no section [search] that says what to vary")
    torch.set_num_threads(1)
    section = config.pop("search")
    config = changed({"every": 1, **config}, section["smaller"])
    changed(config, dict.fromkeys(section["space"]))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        # Another configuration is another study: its scores don't compare.
        study_name=key(config, section)[:16],
        storage=f"sqlite:///{out / STUDY}",
        sampler=optuna.samplers.TPESampler(seed=config["seed"], n_startup_trials=8),
        direction="maximize",
        load_if_exists=True,
    )
    for values in section["first"]:
        study.enqueue_trial(named(config, section["space"], values), skip_if_exists=True)
    data = _Data(data_dir, config, qrs_model.load(), progress)

    def objective(trial: optuna.Trial) -> float:
        one = changed(config, suggest(trial, section["space"]))
        gathered, wholes = data.of(one["rows"])
        verdicts, epochs = cross_validate(gathered, wholes, one)
        bias = choose_bias(verdicts, one["combine"])
        found = cross_report(verdicts, bias)
        veb, sveb = (found["all"][name]["f1"][0] for name in ("veb", "sveb"))
        trial.set_user_attr("veb", veb)
        trial.set_user_attr("sveb", sveb)
        trial.set_user_attr("epochs", epochs)
        progress(f"trial {trial.number}: VEB F1 {veb:.3f}, SVEB F1 {sveb:.3f}, {trial.params}")
        return float(0.5 * (veb + sveb))

    finished = (optuna.trial.TrialState.COMPLETE,)
    while len(study.get_trials(states=finished)) < trials:
        study.optimize(objective, n_trials=1)
        (out / TABLE).write_text(markdown(study), "utf-8")
    return study


def markdown(study: optuna.Study) -> str:
    """Table of the trials that are done, best first.

    Parameters
    ----------
    study : optuna.Study

    Returns
    -------
    str
    """
    done = sorted(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)), key=lambda trial: -(trial.value or 0.0))
    paths = sorted({path for trial in done for path in trial.params})
    lines = ["| trial | VEB F1 | SVEB F1 | mean | " + " | ".join(paths) + " |", "|---" * (4 + len(paths)) + "|"]
    for trial in done:
        cells = [_cell(trial.params.get(path, "")) for path in paths]
        scores = [f"{trial.user_attrs[name]:.3f}" for name in ("veb", "sveb")]
        lines.append(f"| {trial.number} | {' | '.join([*scores, f'{trial.value:.3f}', *cells])} |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value).strip('"')
