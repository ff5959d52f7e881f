"""Baselines of the beat model: what the study and the literature do, on the same splits with the same scorer."""
