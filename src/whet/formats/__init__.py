"""Writers of the artifact's containers: pure functions of codes and parameters, nothing is rounded here."""

from whet.formats.containers import CONTAINERS, linear_table, quantization_config, reading, table_entry, whet_config
from whet.formats.packing import pack, stored_parts
from whet.formats.peft import adapter_config

__all__ = [
    "CONTAINERS",
    "adapter_config",
    "linear_table",
    "pack",
    "quantization_config",
    "reading",
    "stored_parts",
    "table_entry",
    "whet_config",
]
