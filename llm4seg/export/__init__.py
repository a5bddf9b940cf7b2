"""Trained models for other programs and other people: ONNX, torch.export, MONAI bundles, and the hub."""
