"""Networks on beats and rhythm windows: features, the model contract, the ONNX runtime, explanation."""
