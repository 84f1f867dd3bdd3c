"""Model folders: streamed reading, atomic writing, loading originals and lighter models alike."""

from whet.checkpoint.adapter import ADAPTER, CONFIG, WEIGHTS, adapter_config, adapter_tensors, read_factors
from whet.checkpoint.beside import about_left_out, copied_files, copy_beside, inside
from whet.checkpoint.card import read_card
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
from whet.checkpoint.folder import NAMED, Checkpoint
from whet.checkpoint.loading import (
    adapter_file,
    adapter_size,
    attach_adapter,
    empty_model,
    load_lighter,
    load_model,
    load_tokenizer,
    model_class,
    model_config,
    quiet_transformers,
    size_on_disk,
)
from whet.checkpoint.manifest import MANIFEST, TIMES, BaseModelName, Manifest, hashed_files
from whet.checkpoint.verify import check_files

__all__ = [
    "ADAPTER",
    "CONFIG",
    "MANIFEST",
    "NAMED",
    "TIMES",
    "WEIGHTS",
    "BaseModelName",
    "Checkpoint",
    "Manifest",
    "TensorInfo",
    "about_left_out",
    "adapter_config",
    "adapter_file",
    "adapter_size",
    "adapter_tensors",
    "atomic",
    "attach_adapter",
    "check_files",
    "copied_files",
    "copy_beside",
    "disk_errors",
    "empty_model",
    "hashed_files",
    "inside",
    "load_lighter",
    "load_model",
    "load_tokenizer",
    "model_class",
    "model_config",
    "quiet_transformers",
    "read_card",
    "read_factors",
    "read_header",
    "read_tensor",
    "replace",
    "sha256",
    "size_on_disk",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_tensors",
]
