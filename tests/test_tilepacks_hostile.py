"""Files whose hashes are right and whose content is not: refused in one line, whatever they say."""

from __future__ import annotations

import copy
import json
import threading
import tracemalloc
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.engine import load_engine
from s4g.core.errors import InputError, IntegrityError
from s4g.core.sources import open_ground
from s4g.tilepacks.build import build_pack
from s4g.tilepacks.format import encode_container, open_container
from s4g.tilepacks.info import pack_info, pack_text
from s4g.tilepacks.options import BuildOptions
from s4g.tilepacks.plan import plan_pack
from s4g.tilepacks.reader import open_pack

LIMIT_BYTES = 20_000_000  # the whole pack takes a few hundred kB
QUERIES = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)


@dataclass(frozen=True)
class Content:
    """A pack taken apart: two dates, a graph, a projection, tiles that share vectors."""

    folder: Path
    manifest: dict[str, Any]
    sections: dict[str, bytes]

    def write(self, manifest: dict[str, Any] | None = None, **sections: bytes) -> Path:
        path = self.folder / "hostile.s4gpack"
        parts = {**self.sections, **sections}
        path.write_bytes(b"".join(encode_container(manifest or self.manifest, parts)))
        return path


@pytest.fixture(scope="module")
def content(
    toy_source: Path, toy_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Content:
    path = tmp_path_factory.mktemp("hostile") / "p.s4gpack"
    with (
        closing(open_ground(str(toy_source))) as ground,
        closing(load_engine(toy_encoder, threads=1)) as engine,
    ):
        plan = plan_pack(ground, engine.spec, None, (80.0,))
        options = BuildOptions(dims=16, graph_min_vectors=10)
        build_pack([ground, ground], engine, plan, path, options)
    container = open_container(path)
    sections = {name: bytes(container.section(name)) for name in container.names}
    wanted = {"cells", "variants", "vectors", "detail", "codes", "sample", "graph"}
    assert set(sections) == {f"level0.{name}" for name in wanted} | {"projection", "overview"}
    return Content(path.parent, container.manifest, sections)


def _use(path: Path) -> None:
    """Do with a pack all that anybody does; it must hold or be refused in one line."""
    tracemalloc.start()
    try:
        with open_pack(path) as pack:
            pack_text(pack_info(pack)).encode()
            pack.verify()
            pack.search(QUERIES, 0, 3)
            pack.search_within(QUERIES, 0, 0.0, 0.0, 1e6)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error).splitlines()) == 1
        assert str(error).isprintable()
        raise
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < LIMIT_BYTES


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    for key, inner in pairs:
        found += _leaves(inner, (*path, key)) if isinstance(inner, (dict, list)) else [(*path, key)]
    return found


def test_the_pack_itself_holds(content: Content) -> None:
    _use(content.write())


VALUES = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([2**16, 2**31 - 1, 2**32 - 1, 2**63, 10**400, -(2**63)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([None, True, [], {}, "", "graph", "\ud800", "\x1b[2J", "a\nb", "../../x"]),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_the_manifest_is_survived(content: Content, data: st.DataObject) -> None:
    manifest = copy.deepcopy(content.manifest)
    leaves = [path for path in _leaves(manifest) if path[0] != "encoder"]
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(leaves))
        place: Any = manifest
        try:
            for key in parents:
                place = place[key]
            place[last] = data.draw(VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # replaced by what has no such entry
    try:
        _use(content.write(manifest))
    except InputError:
        return


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_in_the_sections_are_survived(content: Content, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(content.sections)))
    section = content.sections[name]
    how = data.draw(st.sampled_from(["bytes", "stream", "cut", "swap"]))
    if how == "bytes":
        changed = bytearray(section)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
        section = bytes(changed)
    elif how == "stream":  # right as a stream, wrong in what it holds
        try:
            inner = bytearray(zlib.decompress(section))
        except zlib.error:
            return
        inner[data.draw(st.integers(0, len(inner) - 1))] = data.draw(st.integers(0, 255))
        section = zlib.compress(bytes(inner))
    elif how == "cut":
        section = section[: data.draw(st.integers(0, len(section) - 1))]
    else:
        section = content.sections[data.draw(st.sampled_from(sorted(content.sections)))]
    try:
        _use(content.write(**{name: section}))
    except IntegrityError:
        return


BOMB = zlib.compress(bytes(50_000_000), 9)


@pytest.mark.parametrize("name", ["cells", "variants", "vectors", "detail"])
def test_a_stream_that_swells_is_refused_before_it_does(content: Content, name: str) -> None:
    with pytest.raises(IntegrityError, match=f"section level0.{name} does not hold "):
        _use(content.write(**{f"level0.{name}": BOMB}))


@pytest.mark.parametrize(
    "counts", [(2**32 - 1, 117), (2**32 - 1, 2**32 - 1), (10**9, 1), (2**21, 100)]
)
def test_huge_counts_are_refused_before_memory_is_taken(
    content: Content, counts: tuple[int, int]
) -> None:
    manifest = copy.deepcopy(content.manifest)
    manifest["levels"][0]["count"], manifest["levels"][0]["vectors"] = counts
    with pytest.raises(IntegrityError, match="damaged or altered: "):
        _use(content.write(manifest))


def test_a_projection_of_huge_dimensions_is_refused(content: Content) -> None:
    manifest = copy.deepcopy(content.manifest)
    manifest["encoder"]["embedding_dim"] = manifest["projection"]["dims"] = 65536
    with pytest.raises(IntegrityError, match="section projection has 2048 bytes, not 17179869184"):
        _use(content.write(manifest))


def test_a_picture_that_swells_is_refused_before_it_does(content: Content) -> None:
    done, large = cv2.imencode(".webp", np.zeros((9000, 9000), np.uint8))
    assert done and len(large) < 200_000
    with pytest.raises(IntegrityError, match="its overview is no picture of the size that"):
        _use(content.write(overview=large.tobytes()))
    manifest = copy.deepcopy(content.manifest)
    manifest["overview"] |= {"width_px": 9000, "height_px": 9000}
    with pytest.raises(IntegrityError, match=r"entry overview\.width_px is out of range"):
        _use(content.write(manifest, overview=large.tobytes()))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_of_another_kind_is_refused(content: Content, suffix: str) -> None:
    record = content.manifest["overview"]
    image = np.zeros((record["height_px"], record["width_px"], 3), np.uint8)
    data = cv2.imencode(suffix, image)[1].tobytes()
    with pytest.raises(IntegrityError, match="its overview is no picture of the size that"):
        _use(content.write(overview=data))


def test_names_with_paths_lead_nowhere(content: Content) -> None:
    manifest = copy.deepcopy(content.manifest)
    manifest["layers"][0]["name"] = "/etc/passwd"
    before = sorted(content.folder.parent.rglob("*"))
    path = content.write(manifest, **{"../../evil": b"x", "/etc/passwd": b"y"})
    _use(path)
    assert sorted(content.folder.parent.rglob("*")) in (before, sorted([*before, path]))


@pytest.mark.parametrize("text", ["\ud800", "\x1b[2J", "a\x00b", "\u202eabc"])
@pytest.mark.parametrize("entry", ["name", "attribution", "date"])
def test_text_that_would_move_a_cursor_is_refused(content: Content, entry: str, text: str) -> None:
    manifest = copy.deepcopy(content.manifest)
    manifest["layers"][0][entry] = text
    with pytest.raises(IntegrityError, match=f"layers.0.{entry} holds unprintable characters"):
        _use(content.write(manifest))


def test_a_wrong_link_between_nodes_is_refused(content: Content) -> None:
    graph = content.sections["level0.graph"]
    sizes = np.frombuffer(graph[20:32], "<u4").tolist()
    links = zlib.decompress(graph[32 + sizes[0] + sizes[1] :])
    count = len(links) // 4
    wrong = bytearray(links)
    wrong[3 * count] = 0x7F  # the highest byte of the first link
    stream = zlib.compress(bytes(wrong))
    head = graph[:28] + len(stream).to_bytes(4, "little")
    altered = head + graph[32 : 32 + sizes[0] + sizes[1]] + stream
    with pytest.raises(IntegrityError, match="its graph links to a node that does not exist"):
        _use(content.write(**{"level0.graph": altered}))


def test_a_graph_of_endless_lists_is_refused_before_memory_is_taken(content: Content) -> None:
    nodes = content.manifest["levels"][0]["search"]["sampled"]
    for top, reason in ((31, "more lists than a graph"), (255, "a node of an impossible level")):
        lists = nodes * (top + 1)
        streams = [
            zlib.compress(bytes([top]) * nodes),
            zlib.compress(bytes(lists)),
            zlib.compress(b""),
        ]
        head = [nodes, 100, 0, lists, 0, *(len(stream) for stream in streams)]
        data = np.array(head, "<u4").tobytes() + b"".join(streams)
        with pytest.raises(IntegrityError, match=f"level0: its graph has {reason}"):
            _use(content.write(**{"level0.graph": data}))


def test_several_threads_may_use_a_pack_that_nobody_has_used(content: Content) -> None:
    path = content.write()
    with open_pack(path) as pack:
        wanted = [pack.search(QUERIES, 0, 5), pack.search_within(QUERIES, 0, 9.0, 9.0, 90.0)]
    found: list[Any] = []
    with open_pack(path) as pack:

        def ask() -> None:
            found.append(
                [pack.search(QUERIES, 0, 5), pack.search_within(QUERIES, 0, 9.0, 9.0, 90.0)]
            )

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 6
    for answers in found:
        for (ids, scores), (all_ids, all_scores) in zip(answers, wanted, strict=True):
            assert (ids == all_ids).all() and (scores == all_scores).all()


def test_what_is_verified_once_is_kept(content: Content) -> None:
    with open_pack(content.write()) as pack:
        assert pack.vectors(0) is pack.vectors(0)
        assert pack.cells(0) is pack.cells(0)


def test_the_manifest_is_json_that_anybody_reads(content: Content) -> None:
    assert json.loads(json.dumps(content.manifest)) == content.manifest
