"""RhythmWatch: the pipeline, the processes and the command line over all rooms."""

import os

__version__ = "0.1.0"

# The engine that runs the models would tell its maker over the network that it is used, from a thread of its own.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
