"""Every table of the database: importing this module makes `alerts.tables.Base` know all `alerts.tables_*` modules."""

from __future__ import annotations

import importlib
import pkgutil

import alerts
from alerts.tables import Base

__all__ = ["Base"]

for _found in pkgutil.iter_modules(alerts.__path__):
    if _found.name.startswith("tables_") and _found.name != "tables_all":
        importlib.import_module(f"alerts.{_found.name}")
