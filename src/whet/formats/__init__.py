"""Writers of the artifact's containers: pure functions of codes and parameters, nothing is rounded here."""

from whet.formats.containers import linear_table, quantization_config, reading, whet_config

__all__ = [
    "linear_table",
    "quantization_config",
    "reading",
    "whet_config",
]
