"""Model folders: streamed reading, atomic writing, loading originals and lighter models alike."""

from whet.checkpoint.files import (
    TensorInfo,
    atomic,
    disk_errors,
    read_header,
    read_tensor,
    replace,
    sha256,
    sync_folder,
    write_bytes,
    write_json,
    write_tensors,
)
from whet.checkpoint.folder import Checkpoint, find_folder, read_whet
from whet.checkpoint.loading import (
    empty_model,
    load_lighter,
    load_model,
    load_tokenizer,
    model_class,
    model_config,
    quiet_transformers,
    size_on_disk,
)

__all__ = [
    "Checkpoint",
    "TensorInfo",
    "atomic",
    "disk_errors",
    "empty_model",
    "find_folder",
    "load_lighter",
    "load_model",
    "load_tokenizer",
    "model_class",
    "model_config",
    "quiet_transformers",
    "read_header",
    "read_tensor",
    "read_whet",
    "replace",
    "sha256",
    "size_on_disk",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_tensors",
]
