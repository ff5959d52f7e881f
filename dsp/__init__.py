"""Signal processing: arrays in, arrays out, state in records; no clock, no input or output."""
