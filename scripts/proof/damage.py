"""Ways to damage a model folder, each with a name, all out of one random.Random.

Knows the form of safetensors files. What becomes of the damage is the business of weights_fuzz.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

__all__ = ["DAMAGES", "Damage"]

Damage = Callable[[random.Random, Path], None]

DTYPES = ("F32", "F16", "BF16", "I8", "U8", "I32", "F64", "F8_E4M3", "BOOL", "F4", "", None, 7)
SIZES = (-1, 0, 1, 2, 3, 2**31, 2**32, 2**62, 2**63, 2**64, 2**200, 1.0, 1.5, True, None, "4", [])


def _weights(rng: random.Random, folder: Path) -> Path:
    """One of its safetensors files."""
    return rng.choice(sorted(folder.glob("*.safetensors")))


def _parts(file: Path) -> tuple[dict, bytes]:
    data = file.read_bytes()
    n = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def _write(file: Path, header: bytes, body: bytes) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header + body)


def truncated(rng: random.Random, folder: Path) -> None:
    """Any number of bytes is missing at the end."""
    file = _weights(rng, folder)
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(rng.choice((0, 1, 7, 8, 9, size - 1, rng.randrange(size))))


def lengthened(rng: random.Random, folder: Path) -> None:
    """Bytes too many at the end, up to terabytes of a hole."""
    file = _weights(rng, folder)
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.truncate(size + rng.choice((1, 7, 4096, 2**30, 2**40)))


def wrong_header_length(rng: random.Random, folder: Path) -> None:
    """The first 8 bytes lie."""
    file = _weights(rng, folder)
    data = bytearray(file.read_bytes())
    true = int.from_bytes(data[:8], "little")
    lie = rng.choice((0, 1, true - 1, true + 1, true + 8, len(data) - 8, len(data), 100_000_000,
                      2**32, 2**63, 2**64 - 1, rng.getrandbits(64)))  # fmt: skip
    data[:8] = lie.to_bytes(8, "little")
    file.write_bytes(data)


def flipped_header(rng: random.Random, folder: Path) -> None:
    """Bytes of the header changed."""
    file = _weights(rng, folder)
    data = bytearray(file.read_bytes())
    end = 8 + int.from_bytes(data[:8], "little")
    for _ in range(rng.choice((1, 1, 3, 20))):
        data[rng.randrange(8, end)] = rng.randrange(256)
    file.write_bytes(data)


def flipped_data(rng: random.Random, folder: Path) -> None:
    """Bytes of tensors changed: what the file holds now is what has to come out."""
    file = _weights(rng, folder)
    data = bytearray(file.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    for _ in range(rng.choice((1, 8, 1000))):
        data[rng.randrange(begin, len(data))] = rng.randrange(256)
    file.write_bytes(data)


def changed_entry(rng: random.Random, folder: Path) -> None:
    """A dtype, shape or offset of a tensor is another, or none."""
    file = _weights(rng, folder)
    header, body = _parts(file)
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match rng.randrange(6):
        case 0:
            entry["dtype"] = rng.choice(DTYPES)
        case 1:
            entry["shape"] = entry["shape"][::-1] + [1] * rng.randrange(3)
        case 2:
            entry["shape"][rng.randrange(len(entry["shape"]))] = rng.choice(SIZES)
        case 3:
            entry["data_offsets"][rng.randrange(2)] = rng.choice(SIZES)
        case 4:
            del entry[rng.choice(list(entry))]
        case _:
            header[name] = rng.choice((None, 3, [], "x", {}, [entry]))
    _write(file, json.dumps(header).encode(), body)


def consistent_lie(rng: random.Random, folder: Path) -> None:
    """Shape, offsets and dtype agree with each other and the file, not with the model."""
    file = _weights(rng, folder)
    header, body = _parts(file)
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    begin, end = entry["data_offsets"]
    n_bytes = end - begin
    entry["dtype"], item = rng.choice((("U8", 1), ("I8", 1), ("BF16", 2), ("F16", 2), ("I16", 2)))
    count = n_bytes // item
    entry["shape"] = rng.choice(([count], [1, count], [count, 1], [2, count // 2], [0, 5, count]))
    if entry["shape"][0] == 0:
        entry["shape"] = [1, 1, count]
    _write(file, json.dumps(header).encode(), body)


def changed_names(rng: random.Random, folder: Path) -> None:
    """Tensors dropped, renamed, doubled, added, or all described as one another."""
    file = _weights(rng, folder)
    header, body = _parts(file)
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.sample(names, 2)
    text = None
    match rng.randrange(6):
        case 0:
            del header[name]
        case 1:
            header[rng.choice(("x", "", "\x1b[2J", "é", name + "_scale", "a" * 10_000))] = (
                header.pop(name)
            )
        case 2:
            header[name], header[other] = header[other], header[name]
        case 3:
            end = len(body)
            header["extra"] = {"dtype": "U8", "shape": [5], "data_offsets": [end, end + 5]}
            body += bytes(5)
        case 4:
            text = json.dumps(header)
            text = "{" + json.dumps(name) + ":" + json.dumps(header[name]) + "," + text[1:]
        case _:
            header[name] = header[other]
    _write(file, (text or json.dumps(header)).encode(), body)


def strange_json(rng: random.Random, folder: Path) -> None:
    """A header that is JSON of another kind, or none."""
    file = _weights(rng, folder)
    header, body = _parts(file)
    whole = json.dumps(header)
    text = rng.choice(
        (
            b"[]", b"3", b"null", b"", b"{}", b'"x"', b"{" * 5000, b"[" * 100_000, b"\xff\xfe{}",
            b'{"__metadata__": 3}', whole.encode("utf-16"), whole.encode() + b" " * 3,
            b" " * 5 + whole.encode(), whole.encode()[:-1], whole.replace("F32", "NaN").encode(),
            b"9" * 10_000, b'{"a": ' + b"9" * 10_000 + b"}", b"\0" * 64,
        )
    )  # fmt: skip
    _write(file, text, body)


def oversized(rng: random.Random, folder: Path) -> None:
    """A tensor of terabytes, in a file with a hole of that size or without."""
    file = _weights(rng, folder)
    header, body = _parts(file)
    last = max(
        (n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"][1]
    )
    begin = header[last]["data_offsets"][0]
    size = rng.choice((2**31, 2**33, 2**40))
    header[last] = {"dtype": "U8", "shape": [2, size // 2], "data_offsets": [begin, begin + size]}
    text = json.dumps(header).encode()
    _write(file, text, body)
    if rng.random() < 0.7:
        with file.open("r+b") as stream:
            stream.truncate(8 + len(text) + begin + size)


def damaged_index(rng: random.Random, folder: Path) -> None:
    """model.safetensors.index.json says something else; in one file, that file is gone."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        (folder / "model.safetensors").unlink()
        return
    document = json.loads(index.read_text())
    weight_map = document["weight_map"]
    name = rng.choice(sorted(weight_map))
    match rng.randrange(5):
        case 0:
            weight_map[name] = rng.choice(
                ("../x", "/etc/passwd", "", "..", 3, None, "no.safetensors")
            )
        case 1:
            weight_map[name] = rng.choice(sorted(set(weight_map.values())))
        case 2:
            del weight_map[name]
        case 3:
            document = rng.choice(([], {}, {"weight_map": []}, {"weight_map": {name: name}}))
        case _:
            data = bytearray(index.read_bytes())
            data[rng.randrange(len(data))] = rng.randrange(256)
            index.write_bytes(data)
            return
    index.write_text(json.dumps(document))


def not_a_file(rng: random.Random, folder: Path) -> None:
    """A folder, a link into nothing, a link to itself, or a text where weights should be."""
    file = _weights(rng, folder)
    file.unlink()
    match rng.randrange(4):
        case 0:
            file.mkdir()
        case 1:
            file.symlink_to("nowhere")
        case 2:
            file.symlink_to(file.name)
        case _:
            file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")


DAMAGES: dict[str, Damage] = {
    damage.__name__.replace("_", " "): damage
    for damage in (
        truncated, lengthened, wrong_header_length, flipped_header, flipped_data, changed_entry,
        consistent_lie, changed_names, strange_json, oversized, damaged_index, not_a_file,
    )
}  # fmt: skip
