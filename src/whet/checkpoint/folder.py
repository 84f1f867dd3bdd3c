"""A model folder as it is read: validated once, then streamed tensor by tensor."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whet.checkpoint.adapter import CONFIG
from whet.checkpoint.beside import refuse_links
from whet.checkpoint.files import Computed, TensorInfo, read_header, read_tensor
from whet.checkpoint.manifest import MANIFEST, read_manifest
from whet.checkpoint.no_model import (
    is_unfinished,
    refuse_pointers_in,
    refuse_unfinished,
    without_config,
    without_weights,
)
from whet.checkpoint.sane import check_config, with_type
from whet.checkpoint.scaled import as_weights
from whet.errors import UsageError
from whet.messages import Message
from whet.paths import check_possible, find_folder
from whet.strict import parse_json

_SHARD = re.compile(r".+-\d{5}-of-(\d{5})\.safetensors")
_CACHE_SCALES = (".k_scale", ".v_scale")
_INDEX = ".safetensors.index.json"
_WHET_INDEX = "whet" + _INDEX
NAMED = "transformers_weights"  # the entry of config.json that names the file or the index to read
_EXAMINED = 1 << 20  # weights looked at together: as float64, a large embedding takes four times its size


class Checkpoint:
    """A folder with config.json and safetensors shards.

    path: the folder. config: config.json as a dict. tensors: name → `TensorInfo`, in the order of the files. repeated:
    names among them that no file has (`repeat`). stored_in: `FP8` or `MXFP4`, where an original is stored in those and
    `config` and `tensors` are of the weights that they stand for (`scaled`); None otherwise. kv: the scales of keys and
    values that a lighter folder holds, which are not among its tensors. Nothing is read but
    headers until `read` is called. Raises UsageError naming the file for anything missing, cut off, or pointing outside
    the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = find_folder(path)
        refuse_links(self.path)
        _refuse_adapter(self.path)
        if not (self.path / "config.json").is_file():
            refuse_unfinished(self.path)
            raise without_config(self.path)
        refuse_pointers_in(self.path)
        self.config = with_type(_read_json(self.path / "config.json"))
        self.whet = read_whet(self.path)
        self._examined: dict[Path, tuple[int, int]] = {}
        self._said = json.dumps(self.config, sort_keys=True)
        files = self._weight_files()
        self.tensors: dict[str, TensorInfo] = {}
        self.repeated: set[str] = set()
        for file in files:
            for name, info in read_header(file).items():
                if name in self.tensors:
                    raise UsageError(
                        "{folder}: tensor {name} is in {file} and in another file. Download again.",
                        folder=self.path,
                        name=name,
                        file=file.name,
                    )
                self.tensors[name] = info
        held = dict(self.tensors)
        scaled = [name for name in held if name.endswith(_CACHE_SCALES)] if (self.whet or {}).get("kv") else []
        self.kv = {name: self.tensors.pop(name) for name in scaled}
        self.stored_in: str | None = None
        own = self.whet is not None or is_unfinished(self.path)  # what whet stores is told by its tables
        if not own and (read := as_weights(self.config, self.tensors)) is not None:
            self.stored_in, self.config, self.tensors = read
        largest = max((size for info in self.tensors.values() for size in info.shape), default=0)
        check_config(self.path / "config.json", self.config, largest)
        if self._index is not None:
            gone = [n for n in self._index if n not in held]
            if gone:
                raise UsageError(
                    "{folder}: the index names {count} tensors that no shard holds (first {name}). The folder is a "
                    "mix of two downloads; download it again.",
                    folder=self.path,
                    count=len(gone),
                    name=gone[0],
                )

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type most of the weights are stored in."""
        sizes: dict[torch.dtype, int] = {}
        for info in self.tensors.values():
            if info.dtype.is_floating_point:
                sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
        return max(sizes, key=lambda d: sizes[d]) if sizes else torch.float32

    @property
    def dense(self) -> bool:
        """Whether its tensors are the weights themselves: an original, or a folder of whet in which nothing is
        rounded."""
        if self.config.get("quantization_config"):
            return False
        return self.whet is None or self.whet["container"] == "dense"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every stored tensor."""
        return {name: info.shape for name, info in self.tensors.items()}

    def repeat(self, name: str, other: str) -> None:
        """From here on there is a tensor `name` with the values of `other`. In memory alone: the folder, and what
        `examine` tells of it, stay as they are."""
        self.tensors[name] = self.tensors[other]
        self.repeated.add(name)

    def turn(self, names: Iterable[str]) -> None:
        """From here on the last two dimensions of these tensors are the other way round. In memory alone too."""
        for name in names:
            info = self.tensors[name]
            shape = (*info.shape[:-2], *info.shape[:-3:-1])
            self.tensors[name] = Computed(info.file, info.dtype, shape, info.start, info.end, (info,), _turned)

    @property
    def stored(self) -> dict[str, TensorInfo]:
        """The tensors that the files hold."""
        return {name: info for name, info in self.tensors.items() if name not in self.repeated}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    def read(self, name: str) -> Tensor:
        """One tensor, in memory of its own, in its stored type."""
        return read_tensor(self.tensors[name])

    def examine(self, on_bytes: Callable[[int], None] = lambda n: None) -> str:
        """Read everything once: SHA-256 of config and weights, after proving every weight finite.

        Raises UsageError that names the first tensor with a NaN or an infinity and how many it has.
        """
        self._examined = self._stamps()
        digest = hashlib.sha256(self._said.encode())
        for name, info in sorted(self.stored.items()):
            value = read_tensor(info)
            digest.update(name.encode() + str(info.shape).encode() + str(info.dtype).encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
            if value.is_floating_point():
                # a sum is finite only if every addend is; the exact count is worth its time only when it is not
                pieces = value.reshape(-1).split(_EXAMINED)
                sums = torch.stack([piece.float().sum(dtype=torch.float64) for piece in pieces])
                if not torch.isfinite(sums).all():
                    bad = sum(int((~piece.float().isfinite()).sum()) for piece in pieces)
                    raise UsageError(
                        "{file}: tensor {name} has {count} weights that are NaN or infinite. Such a model computes "
                        "nothing; download the file again, or ask whoever trained it.",
                        file=info.file.name,
                        name=name,
                        count=bad,
                    )
            on_bytes(info.nbytes)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raises UsageError where a file was written to since `examine`, which read another model then."""
        now = self._stamps()
        for file, stamp in self._examined.items():
            if now.get(file) != stamp:
                raise UsageError(
                    "{file} changed while it was being read, so what was made is of two models. Start in a new folder "
                    "once nothing writes to {folder}.",
                    file=file.name,
                    folder=self.path,
                )

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        """Size and time of the last change of config and weight files, of those that are there."""
        files = {self.path / "config.json", *(info.file for info in self.stored.values())}
        return {file: (stat.st_size, stat.st_mtime_ns) for file in files if file.is_file() and (stat := file.stat())}

    def _weight_files(self) -> list[Path]:
        """The files that transformers reads, by its own rule: what config.json names, else the single file, else the
        index. Of what only `modeling_whet` reads, the index."""
        self._index: dict[str, str] | None = None
        names = [*self._named(), "model.safetensors", "model" + _INDEX, _WHET_INDEX]
        own = self.whet is not None and self.whet["container"] == "whet"
        for name in [_WHET_INDEX, *names] if own else names:
            if not (self.path / name).is_file():
                continue
            if not name.endswith(_INDEX):
                return [self.path / name]
            mapping = _read_json(self.path / name).get("weight_map")
            if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
                raise UsageError(
                    "{index} has no weight_map of names to files. Download it again.", index=self.path / name
                )
            self._index = mapping
            return [self._inside(file) for file in sorted(set(mapping.values()))]
        loose = sorted(p.name for p in self.path.glob("*.safetensors"))
        shards = next((_SHARD.fullmatch(n) for n in loose if _SHARD.fullmatch(n)), None)
        if shards:
            raise UsageError(
                "{folder} has shards ({count} of {whole}) but no model.safetensors.index.json. The download or the "
                "run that wrote it is not finished.",
                folder=self.path,
                count=len(loose),
                whole=int(shards.group(1)),
            )
        refuse_unfinished(self.path)
        raise without_weights(self.path)

    def _named(self) -> list[str]:
        """The file that config.json names, where it does. Raises UsageError where it is none of the folder's."""
        name = self.config.get(NAMED)
        if name is None:
            return []
        fits = isinstance(name, str) and Path(name).name == name and name.endswith((".safetensors", _INDEX))
        if not fits or not (self.path / name).is_file():
            raise UsageError(
                "{file} says {key} = {name!r}, and the folder has no such file of safetensors. Mend that entry.",
                key=NAMED,
                file=self.path / "config.json",
                name=name,
            )
        return [name]

    def _inside(self, name: str) -> Path:
        file = self.path / name
        if Path(name).name != name or name in ("", ".", ".."):
            raise UsageError(
                "{folder}: the index names {name!r}, which is outside the folder. Do not use this model.",
                folder=self.path,
                name=name,
            )
        check_possible(file)
        if not file.is_file():
            raise UsageError(
                "{folder}: shard {name} is missing although the index names it. Download it again.",
                folder=self.path,
                name=name,
            )
        return file


def _turned(value: Tensor) -> Tensor:
    return value.transpose(-1, -2).contiguous()


def read_whet(folder: Path) -> dict[str, Any] | None:
    """whet.json of a folder whet wrote, or None."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    return read_manifest(_read_json(file), file)


def _refuse_adapter(folder: Path) -> None:
    """Where PEFT is installed, transformers loads an adapter that lies beside a model over it, unasked: what the folder
    computes would depend on what is installed."""
    file = folder / CONFIG
    if not file.is_file():
        return
    if (folder / "config.json").is_file():
        raise UsageError(
            "{folder} holds a model and an adapter ({file}), which transformers loads over the model where PEFT is "
            "installed. Merge it first (whet merge, with the two in folders of their own), or move {file} out of the "
            "folder to go on without it.",
            folder=folder,
            file=CONFIG,
        )
    raise UsageError(
        "{folder} holds an adapter for {base}, and no model. Merge it into that first (whet merge MODEL {folder} OUT) "
        "and give the new folder.",
        folder=folder,
        base=_read_json(file).get("base_model_name_or_path") or Message("its model"),
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError("{file} is not valid JSON ({error}). Download it again.", file=file, error=error) from error
    if not isinstance(value, dict):
        raise UsageError("{file} is not a JSON object. Download it again.", file=file)
    return value
