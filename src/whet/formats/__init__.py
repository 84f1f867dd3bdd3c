"""Writers of the artifact's containers: pure functions of codes and parameters, nothing is rounded here."""

from whet.formats.containers import CONTAINERS, linear_table, quantization_config, reading, whet_config
from whet.formats.peft import adapter_config

__all__ = [
    "CONTAINERS",
    "adapter_config",
    "linear_table",
    "quantization_config",
    "reading",
    "whet_config",
]
