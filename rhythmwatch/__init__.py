"""RhythmWatch: the pipeline, the processes and the command line over all rooms."""

__version__ = "0.1.0"
