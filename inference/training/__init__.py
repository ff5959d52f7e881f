"""Training of the shipped models (extra ``train``): readers, splits, scoring, trainers."""
