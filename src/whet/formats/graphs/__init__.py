"""Graphs of runtimes, onnxruntime's and OpenVINO's, written from a folder: one story of a model, told to each."""
