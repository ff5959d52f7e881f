"""MQTT in: frames, codecs, the sequencer, the broker, devices and sources of recordings."""
