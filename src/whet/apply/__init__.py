"""One pass of one job through a model, block after block: what is rounded, repaired, trained, written and proved."""
