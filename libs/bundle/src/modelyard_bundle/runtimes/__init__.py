"""Runtimes: what runs a bundle. ONNX first; scikit-learn where there is no twin that agrees."""
