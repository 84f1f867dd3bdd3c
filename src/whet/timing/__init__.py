"""What is fast on this machine, because it was measured here: runtimes and formats on a model's own shapes."""
