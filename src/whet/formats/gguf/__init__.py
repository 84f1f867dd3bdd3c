"""The .gguf file of llama.cpp, written from a folder: block types, architectures, tokenizers, and the file itself."""

from whet.formats.gguf.adapters import plan_adapter
from whet.formats.gguf.architectures import ARCHITECTURES
from whet.formats.gguf.blocks import block_type, blocks
from whet.formats.gguf.layout import Layout
from whet.formats.gguf.write import plan_gguf, write_gguf

__all__ = ["ARCHITECTURES", "Layout", "block_type", "blocks", "plan_adapter", "plan_gguf", "write_gguf"]
