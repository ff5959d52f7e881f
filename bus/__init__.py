"""The bus: partitioned Redis streams, epochs that fence, checkpoints, the embedded server, and what travels on it."""
