"""Bytes of tensors coded without loss: parted by what they mean, then each part by its own frequencies.

A 16-bit float's exponents repeat and its mantissas do not; codes of three bits lie across bytes. So a stretch is first
parted into planes (every second byte, every byte of a block type, or codes in bytes of their own), and each plane is
coded by the standard library's Deflate with Huffman codes alone, or left as it is where that gains nothing. The parting
is chosen on a sample of the tensor, whatever its type says: any choice gives back the same bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
PLAIN, HUFFMAN, DEFLATE = "plain", "huffman", "deflate"
_SAMPLE = 1 << 18
_WORTH = 0.99  # of its bytes: what gains less is left as it is
_WINDOW = -15  # Deflate without a header of its own
BITS = (2, 3, 5, 6, 7)  # widths of codes that are tried; those of 4 and 8 lie in bytes already


def partings(word: int) -> list[str]:
    """Ways to part bytes that are tried: as they are, words of `word` bytes in planes, codes of so many bits."""
    words = [f"word {size}" for size in dict.fromkeys((word, 2, 4)) if size > 1]
    return ["word 1", *words, *(f"bits {bits}" for bits in BITS)]


def chosen(data: bytes, word: int) -> tuple[str, bool]:
    """The parting that codes a sample of `data` in the fewest bytes, and whether repeated strings are worth looking
    for, which takes several times as long."""
    middle = max(0, (len(data) - _SAMPLE) // 2) // word * word
    sample = data[middle : middle + _SAMPLE]
    sizes = {(parting, False): len(encoded(sample, parting)[1]) for parting in partings(word)}
    best = min(sizes, key=lambda way: sizes[way])
    for parting in {best[0], "word 1"}:
        found = len(encoded(sample, parting, deflate=True)[1])
        if found < _WORTH * min(sizes.values()):
            sizes[parting, True] = found
    return min(sizes, key=lambda way: sizes[way])


def encoded(data: bytes, parting: str, deflate: bool = False) -> tuple[list[list[Any]], bytes]:
    """The planes of `data`, each `[method, bytes of it, bytes coded]`, and all of them coded, one after another.

    deflate: also look for repeated strings, which text has.
    """
    planes, coded = [], []
    for plane in _parted(np.frombuffer(data, np.uint8), parting):
        method, made = _coded(plane.tobytes(), deflate)
        planes.append([method, len(plane), len(made)])
        coded.append(made)
    return planes, b"".join(coded)


def decoded(coded: bytes, planes: Sequence[Sequence[Any]], parting: str, size: int) -> bytes:
    """What `encoded` was given, `size` bytes. Raises ValueError for what is damaged; makes no more than was told."""
    if sum(plane[1] for plane in planes) > 2 * _most(size, parting) or any(min(plane[1:]) < 0 for plane in planes):
        raise ValueError("its planes are larger than what they are of")
    at, found = 0, []
    for method, length, stored in planes:
        part = coded[at : at + stored]
        at += stored
        found.append(np.frombuffer(_plain(part, method, length), np.uint8))
    data = _joined(found, parting, size)
    if at != len(coded) or len(data) != size:
        raise ValueError("its planes have another length")
    return data


def _most(size: int, parting: str) -> int:
    """Bytes that planes of `size` bytes can have."""
    kind, number = _said(parting)
    return size * 8 // number + 8 if kind == "bits" else size + 1


def _coded(plane: bytes, deflate: bool) -> tuple[str, bytes]:
    found = {PLAIN: plane}
    ways = {HUFFMAN: zlib.Z_HUFFMAN_ONLY, **({DEFLATE: zlib.Z_DEFAULT_STRATEGY} if deflate else {})}
    for method, strategy in ways.items():
        packer = zlib.compressobj(9 if deflate else 6, zlib.DEFLATED, _WINDOW, 9, strategy)
        made = packer.compress(plane) + packer.flush()
        if len(made) < _WORTH * min(map(len, found.values())):
            found[method] = made
    method = min(found, key=lambda name: len(found[name]))
    return method, found[method]


def _plain(part: bytes, method: str, length: int) -> bytes:
    if method == PLAIN:
        data = part
    elif method in (HUFFMAN, DEFLATE):
        reader = zlib.decompressobj(_WINDOW)
        try:
            data = reader.decompress(part, length + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if not reader.eof or reader.unused_data:
            raise ValueError("a plane ends too early or too late")
    else:
        raise ValueError(f"it is coded by {method!r}, which this whet does not know")
    if len(data) != length:
        raise ValueError("a plane has another length")
    return data


def _said(parting: str) -> tuple[str, int]:
    kind, _, number = parting.partition(" ")
    if kind not in ("word", "bits") or not number.isdigit() or not 0 < int(number) <= 1 << 12:
        raise ValueError(f"it is parted by {parting!r}, which this whet does not know")
    return kind, int(number)


def _parted(data: Bytes, parting: str) -> list[Bytes]:
    """Planes of `data`; what does not fill the last word is one of its own."""
    kind, number = _said(parting)
    whole = len(data) // number * number
    if kind == "word":
        planes = list(data[:whole].reshape(-1, number).T) if number > 1 else [data[:whole]]
        return [*planes, data[whole:]]
    bits = np.unpackbits(data[:whole], bitorder="little").reshape(-1, number)
    codes = np.packbits(bits, axis=1, bitorder="little")[:, 0]
    if number <= 4:  # two codes to a byte: Huffman's codes have whole bits
        codes = (codes[0::2] | codes[1::2] << number).astype(np.uint8)
    return [codes, data[whole:]]


def _joined(planes: Sequence[Bytes], parting: str, size: int) -> bytes:
    """`_parted`, undone."""
    kind, number = _said(parting)
    whole = size // number * number
    if kind == "word":
        if len(planes) != number + 1 or any(len(plane) != whole // number for plane in planes[:-1]):
            raise ValueError("its planes have other lengths")
        return np.stack(planes[:-1], axis=1).tobytes() + planes[-1].tobytes()
    if len(planes) != 2 or len(planes[0]) != 8 * whole // number // (2 if number <= 4 else 1):
        raise ValueError("its planes have other lengths")
    codes = planes[0]
    if number <= 4:
        codes = np.stack([codes & (1 << number) - 1, codes >> number], axis=1).reshape(-1).astype(np.uint8)
    bits = np.unpackbits(codes[:, None], axis=1, bitorder="little")[:, :number]
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes() + planes[1].tobytes()
