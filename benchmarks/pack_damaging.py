"""Ways to damage a pack, for `pack_damage.py`: with wrong hashes, and with right ones."""

from __future__ import annotations

import copy
import functools
import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from s4g.core.pmtiles_directory import Entries, decode_directory, encode_directory
from s4g.core.pmtiles_write import HEADER as PMTILES_HEADER
from s4g.tilepacks.columns import decode_column, deflate, encode_column, from_planes, to_planes
from s4g.tilepacks.format import MAGIC, MAJOR, MINOR, SEAL_BYTES, encode_container
from s4g.tilepacks.graph import MAX_LINKS, Graph
from s4g.tilepacks.links import encode_graph

Rng = np.random.Generator
_DIMS = 32
_HEADER = struct.Struct("<8sHHIQQQ32s24x")
_GRAPH = struct.Struct("<8I")
_PAGE = 4096
HUGE = (2**16, 2**31 - 1, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 10**30)
TEXTS = ("", "../../x", "/etc/passwd", "level9.codes", "a\nb", "\x1b[2J", "\ud800", "\u202eab",
         "\x00", "é", "x" * 65, "x" * 100_000, "exact", "graph", "leading", "matrix")  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A whole pack, and what it answers.

    Attributes:
        data: the file.
        manifest: without its section table.
        sections: by name.
        seal: what follows the content.
        trusted: the key that must have signed it, or None.
        answers: of `use`.
    """

    data: bytes
    manifest: dict[str, Any]
    sections: dict[str, bytes]
    seal: bytes
    trusted: bytes | None
    answers: str

    @functools.cached_property
    def edges(self) -> list[int]:
        """Offsets where a field, the manifest, a section or the signature begins or ends."""
        end = len(self.data) - len(self.seal)
        found = [0, 8, 10, 12, 16, 24, 32, 40, 72, 96, 128, end, len(self.data)]
        found.append(128 + int.from_bytes(self.data[32:40], "little"))
        at = _aligned(found[-1])
        for section in self.sections.values():
            found += [at, at + len(section)]
            at = _aligned(at + len(section))
        if self.seal:
            found += [end + 8, end + 40]
        near = {edge + step for edge in found for step in (-1, 0, 1)}
        return sorted(edge for edge in near if 0 <= edge < len(self.data))

    def packed(self, manifest: dict[str, Any], sections: dict[str, bytes]) -> bytes:
        """Return a file of other content, its hashes right."""
        try:
            parts = [bytes(part) for part in encode_container(manifest, sections)]
        except ValueError:  # holds a NaN, which the writer refuses
            return self.spelt({**manifest, "sections": _table(sections)}, _body(sections))
        return b"".join(parts) + self.seal

    def spelt(self, manifest: Any, body: bytes) -> bytes:
        """Return a file of a manifest, as JSON or as bytes, and what follows it, hashes right."""
        text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode("ascii")
        content = text + bytes(-(128 + len(text)) % 64) + body
        values = [MAGIC, MAJOR, MINOR, 0, 128 + len(content), 128, len(text)]
        return _head([*values, hashlib.sha256(text).digest()]) + content + self.seal


def _aligned(offset: int) -> int:
    return -(-offset // 64) * 64


def _head(values: list[Any]) -> bytes:
    head = _HEADER.pack(*values)
    return head + hashlib.sha256(head).digest()


def _body(sections: dict[str, bytes]) -> bytes:
    body = b""
    for section in sections.values():
        body += bytes(-len(body) % 64) + section
    return body


def _table(sections: dict[str, bytes]) -> list[dict[str, Any]]:
    rows, at = [], 0
    for name, section in sections.items():
        digest = hashlib.sha256(section).hexdigest()
        rows.append({"name": name, "offset": at, "length": len(section), "sha256": digest})
        at = _aligned(at + len(section))
    return rows


# ---- damage that the hashes show ---------------------------------------------------------------


def _cut(base: Base, rng: Rng, number: int) -> bytes:
    """Cut at every edge in turn, then anywhere; some copies grow instead."""
    if number < len(base.edges):
        return base.data[: base.edges[number]]
    if rng.random() < 0.1:
        return base.data + rng.bytes(int(rng.choice([1, 64, SEAL_BYTES, _PAGE])))
    return base.data[: rng.integers(len(base.data))]


def _flip(base: Base, rng: Rng, number: int) -> bytes:
    """Flip one bit; half of them in header, manifest and signature, which are few bytes."""
    changed = bytearray(base.data)
    head = _aligned(128 + int.from_bytes(base.data[32:40], "little"))
    places = [*range(head), *range(len(changed) - len(base.seal) - 64, len(changed))]
    place = rng.choice(places) if number % 2 else rng.integers(len(changed))
    changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _garbage(base: Base, rng: Rng, number: int) -> bytes:
    """Overwrite 16 bytes to a page by noise or by zeros, as a torn write leaves them."""
    changed = bytearray(base.data)
    length = int(2 ** rng.uniform(4, 12))
    start = int(rng.integers(len(changed) - length))
    if rng.random() < 0.3:
        start, length = start // _PAGE * _PAGE, _PAGE
    part = bytes(length) if rng.random() < 0.3 else rng.bytes(length)
    changed[start : start + length] = part[: len(changed) - start]
    return bytes(changed)


def _swap(base: Base, rng: Rng, number: int) -> bytes:
    """Exchange two pages."""
    changed = bytearray(base.data)
    one, other = _PAGE * rng.choice(len(changed) // _PAGE, 2, replace=False)
    pages = [base.data[at : at + _PAGE] for at in (one, other)]
    changed[one : one + _PAGE], changed[other : other + _PAGE] = pages[1], pages[0]
    return bytes(changed)


# ---- content that is wrong though its hashes are right -----------------------------------------


def _header(base: Base, rng: Rng, number: int) -> bytes:
    """Set header fields to what they must not be."""
    values = list(_HEADER.unpack_from(base.data))
    size, manifest = len(base.data), int(values[6])
    wild: dict[int, list[int]] = {
        1: [0, MAJOR - 1, MAJOR + 1, 65535],
        2: [MINOR + 1, 9, 65535],
        3: [1, 2**31],
        4: [0, 127, 128, size - 1, size + 1, size + 64, size - SEAL_BYTES, size + SEAL_BYTES],
        5: [0, 64, 127, 129, 192, size],
        6: [0, 1, manifest - 1, manifest + 1, manifest + 64, size, size - 128, 1 << 24, 2 << 24],
    }
    for _ in range(rng.integers(1, 3)):
        field = int(rng.choice(list(wild)))
        most = {1: 2**16, 2: 2**16, 3: 2**32}.get(field, 2**64)
        values[field] = _pick(rng, [*wild[field], *(v for v in HUGE if v < most)])
    if rng.random() < 0.5:  # the manifest's hash is right for where the header says it lies
        start, length = (min(int(v), size) for v in values[5:7])
        values[7] = hashlib.sha256(base.data[start : start + length]).digest()
    head = bytearray(_HEADER.pack(*values))
    if rng.random() < 0.1:
        head[72 + rng.integers(24)] = 1
    return bytes(head) + hashlib.sha256(head).digest() + base.data[128:]


def _tables(base: Base, rng: Rng, number: int) -> bytes:
    """Write a section table, or JSON, that must not be."""
    rows, body = _table(base.sections), _body(base.sections)
    values: dict[str, Any] = {**base.manifest, "sections": rows}
    way = _pick(rng, ["row"] * 6 + ["rows"] * 2 + ["json"] * 3)
    if way == "json":
        return base.spelt(_odd_json(values, rng), body)
    if way == "rows":
        one, other = rng.integers(len(rows), size=2)
        for change in rng.choice(6, rng.integers(1, 3)):
            if change == 0:
                rows.append(rows[one])
            elif change == 1:
                rows[one], rows[other] = rows[other], rows[one]
            elif change == 2:
                del rows[min(one, len(rows) - 1)]
            elif change == 3:
                rows[one : one + 1] = [{**rows[one % len(rows)], "name": "../../x"}] * 5000
            elif change == 4:
                empty = {"name": "none", "length": 0, "sha256": hashlib.sha256().hexdigest()}
                rows.append({**empty, "offset": _aligned(len(body))})
            else:  # what no reader knows is passed over
                body += bytes(-len(body) % 64) + b"unknown"
                rows.append(_table({"x": b"unknown"})[0] | {"offset": len(body) - 7})
        return base.spelt(values, body)
    for _ in range(rng.integers(1, 3)):
        row, key = rows[rng.integers(len(rows))], _pick(rng, ["name", "offset", "length", "sha256"])
        near = row[key] if isinstance(row[key], int) else 0
        numbers = [near + 1, near - 1, near + 64, near - 64, 0, -1, -(2**63), 1.5, *HUGE]
        other = rows[rng.integers(len(rows))][key]
        row[key] = _pick(rng, [*numbers, *TEXTS, other, None, True, [], {}, float("nan")])
        if rng.random() < 0.05:
            del row[key]
    return base.spelt(values, body)


def _odd_json(values: dict[str, Any], rng: Rng) -> bytes:
    text = json.dumps(values)
    ways = [
        "[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "", "null", "[]", "{",
        '"x"', "NaN", "1e999", text + text, text[:-1], text.replace(": ", ":  ") + " " * 1000,
        text.replace('"count": ', '"count": 1, "count": '), text.replace("1", "1" * 5000, 1),
        text.replace(": 0.", ": 1e999, \"x\": 0."), text.replace("[", "[NaN, "), text[::-1],
        text.replace('"tool"', '"sections"'), '{"sections": ' + "9" * 4000 + "}", text[:-1] + ",}",
        text[:-1] + ', "deep": ' + "[" * 900 + "]" * 900 + "}", text[:-1] + ', "sections": []}',
    ]  # fmt: skip
    found = str(_pick(rng, ways)).encode()
    return _pick(rng, [found] * 8 + [b"\xef\xbb\xbf" + found, found.replace(b"e", b"\xe9"),
                       found.decode().encode("utf-16")])  # fmt: skip


def _manifest(base: Base, rng: Rng, number: int) -> bytes:
    """Change one to three entries of the manifest: left out, of another type, huge, foreign."""
    manifest = copy.deepcopy(base.manifest)
    for _ in range(rng.integers(1, 4)):
        paths = list(_paths(manifest))
        *parents, last = _pick(rng, paths)
        place: Any = manifest
        for key in parents:
            place = place[key]
        old = place[last]
        way = rng.integers(8)
        if way == 0:
            del place[last]
        elif way == 1:  # moved here from elsewhere
            place[last] = copy.deepcopy(_at(manifest, _pick(rng, paths)))
        elif way == 2 and isinstance(old, list):
            place[last] = old * int(rng.choice([0, 2, 40]))
        elif way <= 4 and isinstance(old, (int, float)):
            nudged = [old + 1, old - 1, -old, 2 * old, old / 2, 1e-300, 1e300, float(old), *HUGE]
            place[last] = _pick(rng, nudged)
        else:
            place[last] = _pick(rng, [None, True, False, [], {}, [[]], 0, -1, 0.5, float("nan"),
                                      float("inf"), -(2**63), *HUGE, *TEXTS])  # fmt: skip
    return base.packed(manifest, base.sections)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from _paths(inner, (*path, key))


def _content(base: Base, rng: Rng, number: int) -> bytes:
    """Change what a section holds: its bytes, or what is in its stream."""
    name = str(rng.choice([name for name in base.sections if not name.endswith(".graph")]))
    data, kind = base.sections[name], name.split(".")[-1]
    own = {"codes": _odd_codes, "projection": _odd_projection, "overview": odd_picture,
           "imagery": _odd_archive}  # fmt: skip
    if rng.random() < 0.25:
        data = _odd_bytes(data, base, rng)
    elif kind in own:
        data = own[kind](data, rng)
    else:
        data = _odd_stream(data, rng, kind in ("cells", "vectors", "sample"))
    return base.packed(base.manifest, {**base.sections, name: data})


def _odd_bytes(data: bytes, base: Base, rng: Rng) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(len(data), size=rng.integers(1, 9)):
        changed[at] = rng.integers(256)
    other = base.sections[str(rng.choice(list(base.sections)))]
    shorter = data[: rng.integers(len(data))]
    return _pick(rng, [bytes(changed)] * 4 + [shorter, b"", data + b"\0", data[::-1], other])


def _odd_stream(data: bytes, rng: Rng, column: bool) -> bytes:
    inner = zlib.decompress(data)
    changed = bytearray(inner)
    for at in rng.integers(len(inner), size=rng.integers(1, 5)):
        changed[at] = rng.integers(256)
    ways = [deflate(bytes(changed))] * 6 + [deflate(inner[:-1]), deflate(inner + b"\0")]
    ways += [data + data[:9], _steady(50 << 20, b"\0"), deflate(rng.bytes(len(inner)))]
    if column:
        words = decode_column(data, len(inner) // 4)
        some = words.copy()
        some[rng.integers(len(words), size=3)] = _pick(rng, [0, 2**31, 2**32 - 1, len(words)])
        rows = [some, some, words[::-1], np.zeros_like(words), rng.permutation(words), words + 1]
        ways += [encode_column(np.ascontiguousarray(row)) for row in rows]
    return _pick(rng, ways)


def _odd_codes(data: bytes, rng: Rng) -> bytes:
    rows = np.frombuffer(data, np.int8).reshape(-1, _DIMS).copy()  # the plain pack's: two a vector
    some = rng.integers(len(rows), size=5)
    value = _pick(rng, [0, -128, 127, 1])
    if rng.random() < 0.5:
        rows[some] = value
    elif rng.random() < 0.3:
        rows[:] = value
    else:
        rows[some] = rng.integers(-128, 128, (5, _DIMS))
    return rows.tobytes()


def _odd_projection(data: bytes, rng: Rng) -> bytes:
    matrix = np.frombuffer(data, "<f4").reshape(-1, _DIMS).copy()
    some = tuple(rng.integers(side) for side in matrix.shape)
    spot = matrix.copy()
    spot[some] = _pick(rng, [np.nan, np.inf, -np.inf, 3e38, 1e-45, 0, 1])
    ways = [spot] * 4 + [2 * matrix, 1.0004 * matrix, -matrix, 0 * matrix, matrix * np.nan,
            matrix[:, ::-1], matrix[::-1], np.full_like(matrix, 3e38)]  # fmt: skip
    return np.ascontiguousarray(_pick(rng, ways), "<f4").tobytes()


def odd_picture(data: bytes, rng: Rng) -> bytes:
    """Return a picture of an altered head, torn, or of another size or kind."""
    changed = bytearray(data)
    for at in rng.integers(min(len(data), 48), size=rng.integers(1, 5)):
        changed[at] = rng.integers(256)
    torn = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    noise = data[:30] + rng.bytes(len(data) - 30)
    return _pick(rng, [bytes(changed)] * 5 + [torn, noise, *(_flat(side) for side in (4096, 9000)),
                       _flat(64, ".png"), _flat(64, ".jpg")])  # fmt: skip


def _odd_archive(data: bytes, rng: Rng) -> bytes:
    """Change a PMTiles archive: a number of its header, its root directory, or its tiles."""
    values = list(PMTILES_HEADER.unpack_from(data))
    root, *others = (
        data[at : at + size] for at, size in zip(*[iter(values[2:10])] * 2, strict=True)
    )
    way = rng.integers(4)
    if way == 0:
        field = int(rng.integers(2, 13))
        values[field] = _pick(rng, [0, 1, values[field] + 1, len(data), *HUGE[:6]])
        return PMTILES_HEADER.pack(*values) + data[PMTILES_HEADER.size :]
    if way == 1:
        at = int(rng.integers(len(others[2])))
        others[2] = others[2][:at] + rng.bytes(40) + others[2][at + 40 :]
        others[2] = others[2][: values[9]]
    elif rng.random() < 0.2:
        noise = rng.bytes(len(root))
        root = _pick(
            rng, [gzip.compress(bytes(50 << 20), 1, mtime=0), root[:-1], root + root, noise]
        )
    else:
        entries = decode_directory(root)
        columns = {key: getattr(entries, key).copy() for key in vars(entries)}
        column, place = columns[_pick(rng, list(columns))], rng.integers(len(entries))
        near = int(column[place])
        column[place] = _pick(rng, [0, 1, near + 1, abs(near - 1), 2**31, 2**40, 2**61])
        root = encode_directory(Entries(**columns))
    at = PMTILES_HEADER.size
    for place, part in enumerate([root, *others]):
        values[2 + 2 * place : 4 + 2 * place] = at, len(part)
        at += len(part)
    return PMTILES_HEADER.pack(*values) + root + b"".join(others)


@functools.cache
def _flat(side_px: int, suffix: str = ".webp") -> bytes:
    """Return a picture of one grey: few bytes, many pixels."""
    return cv2.imencode(suffix, np.full((side_px, side_px), 90, np.uint8))[1].tobytes()


@functools.cache
def _steady(length: int, first: bytes, ones: int = 0) -> bytes:
    """Return a zlib stream of `ones` times a byte and then zeros, without holding its content."""
    stream, parts = zlib.compressobj(9), []
    for byte, left in ((first, ones), (b"\0", length - ones)):
        while left:
            step = min(left, 1 << 20)
            parts.append(stream.compress(byte * step))
            left -= step
    return b"".join([*parts, stream.flush()])


def _graphs(base: Base, rng: Rng, number: int) -> bytes:
    """Change a graph's head, levels, list lengths and links, mostly so that its sums fit."""
    name = str(rng.choice([name for name in base.sections if name.endswith(".graph")]))
    data = base.sections[name]
    head = list(_GRAPH.unpack_from(data))
    ends = np.cumsum([_GRAPH.size, *head[5:]])
    streams = [zlib.decompress(data[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    levels, degrees = (np.frombuffer(stream, np.uint8).copy() for stream in streams[:2])
    values = from_planes(streams[2]).copy()
    nodes, m = head[0], head[1]
    way = int(rng.integers(10))
    some = rng.integers(nodes, size=int(rng.choice([1, 3, 40])))
    if way == 0:
        head[rng.integers(8)] = _pick(rng, [0, 1, 2, 100, 101, nodes, nodes - 1, *HUGE[:3]])
    elif way == 1:
        levels[some] = _pick(rng, [0, 1, 2, 31, 32, 255])
    elif way == 2:
        degrees[some] = _pick(rng, [0, 1, m, m + 1, 2 * m, 2 * m + 1, 255])
    elif way == 3:
        values[rng.integers(len(values), size=len(some))] = rng.integers(2**32)
    elif way == 4:
        values[rng.integers(len(values), size=len(some))] += np.uint32(_pick(rng, [1, 2, 9, nodes]))
    elif way == 5:  # no links at all, or none from some nodes
        keep = rng.random(len(degrees)) < _pick(rng, [0.0, 0.5])
        values = values[np.repeat(keep, degrees)]
        degrees[~keep] = 0
    elif way == 6:  # every list links to its own first neighbours again and again
        values[:] = np.uint32(_pick(rng, [0, 1, 2**32 - 1]))
    elif way == 7:
        values = rng.permutation(values)
    elif way == 8:
        tops = np.flatnonzero(levels == levels.max())
        head[2] = int(_pick(rng, [*tops, 0, nodes - 1, nodes]))
    else:  # more links than asked for
        head[1] = 100
        degrees = np.full_like(degrees, 1)
        values = np.zeros(len(degrees), np.uint32)
    if way in (1, 2) and rng.random() < 0.8:  # sums fit again
        lists = min(int(levels.astype(int).sum()) + nodes, 1 << 18)
        degrees = np.resize(degrees, lists)
        values = np.resize(values, int(degrees.astype(int).sum()))
    if way != 0:
        head[3], head[4] = len(degrees), len(values)
    parts = [deflate(levels.tobytes()), deflate(degrees.tobytes()), deflate(to_planes(values))]
    if rng.random() < 0.1:
        part = rng.integers(3)
        parts[part] = _pick(rng, [_steady(50 << 20, b"\0"), parts[part][:-1], parts[part] + b"x"])
    if way != 0 or rng.random() < 0.5:
        head[5:] = [len(part) for part in parts]
    packed = _GRAPH.pack(*(value % 2**32 for value in head))
    return base.packed(base.manifest, {**base.sections, name: packed + b"".join(parts)})


def _swollen(base: Base, rng: Rng, number: int) -> bytes:
    """Promise far more than there is, in numbers that fit each other and in streams that swell."""
    manifest, sections = copy.deepcopy(base.manifest), dict(base.sections)
    way = _pick(rng, ["tiles"] * 3 + ["links"] * 2 + ["picture"])
    level = manifest["levels"][0]
    if way == "picture":
        side = int(rng.choice([4096, 9000]))
        place = {"west_m": 0.0, "north_m": 0.0, "gsd_m": 1.0, "width_px": side, "height_px": side}
        return base.packed(manifest | {"overview": place}, {**sections, "overview": _flat(side)})
    if way == "tiles":  # that all look alike, each in its place or all in one
        count = 1 << (14 + int(9 * rng.random() ** 5))  # to 4 million, which takes seconds
        level |= {"count": count, "vectors": 1}
        level["search"] |= {"method": "exact", "step": 1, "sampled": 0}
        level["lattice"] |= {"columns": 1 << 15, "rows": 1 << 15}
        sections["level0.codes"] = sections["level0.codes"][: manifest["projection"]["dims"]]
        sections["level0.cells"] = _steady(4 * count, b"\2", _pick(rng, [0, count]))
        sections |= {f"level0.{part}": _steady(count, b"\0") for part in ("detail", "variants")}
        sections["level0.vectors"] = _steady(4 * count, b"\0")
        return base.packed(manifest, sections)
    # One number a vector, and a graph of as many links as can be.
    count = 1 << 14
    manifest["projection"] |= {"kind": "leading", "dims": 1}
    level |= {"count": count, "vectors": count}
    level["search"] |= {"method": "graph", "step": 1, "dims": 1}
    level["lattice"] |= {"columns": count, "rows": 1}
    manifest["levels"] = [level]
    sections["level0.codes"] = b"\1" * count
    sections["level0.graph"] = _dense_graph(count)
    sections["level0.cells"] = _steady(4 * count, b"\2", count - 1)
    sections |= {f"level0.{part}": _steady(count, b"\0") for part in ("detail", "variants")}
    return base.packed(manifest, sections)


@functools.cache
def _dense_graph(nodes: int) -> bytes:
    """Return a graph with as many links as can be, to nodes that lie side by side."""
    levels, degrees = np.zeros(nodes, np.uint8), np.full(nodes, 2 * MAX_LINKS, np.uint8)
    first = np.minimum(np.arange(nodes), nodes - 2 * MAX_LINKS)
    links = (first[:, None] + np.arange(2 * MAX_LINKS)).astype(np.uint32).reshape(-1)
    return encode_graph(Graph(MAX_LINKS, 0, levels, degrees, links))


def _pick(rng: Rng, values: Any) -> Any:
    return values[rng.integers(len(values))]


# Which of them leave the hashes wrong: with those, only a whole pack may answer.
PLAIN: dict[str, Callable[[Base, Rng, int], bytes]] = {
    "cut": _cut, "bit flip": _flip, "garbage": _garbage, "pages swapped": _swap,
}  # fmt: skip
KINDS = PLAIN | {
    "header": _header, "section table": _tables, "manifest": _manifest, "sections": _content,
    "graph": _graphs, "swollen": _swollen,
}  # fmt: skip


def damage(bases: list[Base], seed: int, number: int) -> tuple[str, Base, bytes]:
    """Return kind, original and bytes of a copy."""
    kind, turn = list(KINDS)[number % len(KINDS)], number // len(KINDS)
    fit = bases if kind != "graph" else [b for b in bases if "level0.graph" in b.sections]
    base, rng = fit[turn % len(fit)], np.random.default_rng([seed, number])
    return kind, base, KINDS[kind](base, rng, turn // len(fit))
