"""What differs between two packs, counted anew tile by tile."""

from __future__ import annotations

import dataclasses
import json
import runpy
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4g.core.errors import InputError, IntegrityError
from s4g.core.geo import BBox, LocalFrame
from s4g.tilepacks.combine import CombineOptions, merge_packs
from s4g.tilepacks.diff import Difference, LevelDiff, PackDiff, compare_packs
from s4g.tilepacks.extract import extract_pack
from s4g.tilepacks.format import encode_container, open_container
from s4g.tilepacks.manifest import LayerRecord
from s4g.tilepacks.reader import open_pack
from s4g.tilepacks.signature import make_keys, sign_pack

toy = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("toy_packs.py"))))

REMEDY = "; copy it again from where it was built, or rebuild it with s4g-pack"
LAYERS = (toy.SPRING, toy.AUTUMN, toy.WINTER)
Run = Callable[..., tuple[int, str, str]]
Content = dict[Any, tuple[int, bytes]]


def compare(a: Path, b: Path, level_m: float | None = None) -> PackDiff:
    with open_pack(a) as one, open_pack(b) as other:
        return compare_packs(one, other, level_m)


def content(path: Path) -> Content:
    with open_pack(path) as pack:
        found: Content = toy.content_of(pack)
        return found


def differences(a: Path, b: Path) -> dict[str, tuple[Any, Any]]:
    return {d.what: (d.a, d.b) for d in compare(a, b).differences}


def cosine(a: bytes, b: bytes) -> float:
    one, other = (np.frombuffer(v, np.int8).astype(np.float64) for v in (a, b))
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def counted(a: Content, b: Content, level_m: float) -> LevelDiff:
    """What differs, place by place."""
    a = {place: value for place, value in a.items() if place[0] == level_m}
    b = {place: value for place, value in b.items() if place[0] == level_m}
    both = a.keys() & b.keys()
    changed = {p: cosine(a[p][1], b[p][1]) for p in both if a[p][1] != b[p][1]}
    values = list(changed.values())
    shares = {"min": 0, "p5": 5, "p50": 50, "p95": 95}
    worst: dict[Any, float] = {}  # by place, whatever the imagery and the heading
    for place, value in changed.items():
        worst[place[1:3]] = min(value, worst.get(place[1:3], 2.0))
    return LevelDiff(
        level_m=level_m,
        only_a=len(a.keys() - both),
        only_b=len(b.keys() - both),
        same=len(both) - len(changed),
        changed=len(changed),
        cosine={name: float(np.percentile(values, q)) for name, q in shares.items() if values},
        most_changed=tuple(sorted(worst.values())[:5]),  # type: ignore[arg-type]
    )


def assert_counted(found: LevelDiff, a: Content, b: Content) -> None:
    wanted = counted(a, b, found.level_m)
    numbers = ("level_m", "only_a", "only_b", "same", "changed")
    assert [getattr(found, n) for n in numbers] == [getattr(wanted, n) for n in numbers]
    assert found.cosine == pytest.approx(wanted.cosine, abs=1e-4)
    cosines = [place.cosine for place in found.most_changed]
    assert cosines == pytest.approx(list(wanted.most_changed), abs=1e-4)
    assert cosines == sorted(cosines)
    changes: dict[Any, list[float]] = {}
    for at in a.keys() & b.keys():
        if at[0] == wanted.level_m and a[at][1] != b[at][1]:
            changes.setdefault(at[1:3], []).append(cosine(a[at][1], b[at][1]))
    for place in found.most_changed:
        east, north = (float(v) for v in toy.FRAME.to_local(place.lat, place.lon))
        centre = 20.0 * round(east / 20.0), 20.0 * round(north / 20.0)
        assert (east, north) == pytest.approx(centre, abs=0.02)
        assert place.cosine == pytest.approx(min(changes.pop(centre)), abs=1e-4)


def named_as(
    layers: Sequence[LayerRecord], others: Sequence[LayerRecord], tiles: Content
) -> Content:
    """The tiles of a pack as if its imagery had the names of the other one's, where it can."""
    left = [layer for layer in others if layer not in layers]
    names = {layer: layer for layer in layers if layer in others}
    for layer in layers:
        if layer not in others:
            names[layer] = left.pop(0) if left else layer
    return {(*place[:3], names[place[3]], place[4]): value for place, value in tiles.items()}


boxes = st.tuples(st.integers(0, 6), st.integers(3, 7), st.integers(0, 6), st.integers(3, 7))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.tuples(boxes, boxes),
    st.tuples(st.permutations(LAYERS), st.permutations(LAYERS)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.booleans(),
    st.booleans(),
)
def test_tiles_are_counted_as_place_by_place(
    boxes: Any, layers: Any, counts: Any, again: bool, headings: bool
) -> None:
    with TemporaryDirectory() as folder:
        paths = []
        for i, (box, own, count) in enumerate(zip(boxes, layers, counts, strict=True)):
            path = Path(folder) / f"{i}.s4gpack"
            toy.write_toy_pack(
                path,
                range(box[0], box[0] + box[1]),
                range(box[2], box[2] + box[3]),
                layers=own[:count],
                headings_deg=(0.0, 180.0) if headings and i else (0.0,),
                footprints_m=(80.0, 160.0),
                holes=0.2,
                seed=0 if again else i,
            )
            paths.append(path)
        found = compare(*paths)
        named = [own[:count] for own, count in zip(layers, counts, strict=True)]
        held = [content(paths[0]), named_as(named[1], named[0], content(paths[1]))]
        if not found.identical:
            assert [level.level_m for level in found.levels] == [80.0, 160.0]
        for level in found.levels:
            assert_counted(level, *held)
        assert found.different == (held[0] != held[1] or bool(found.differences))


def test_a_few_changed_tiles_are_told_by_place(tmp_path: Path) -> None:
    a = toy.write_toy_pack(tmp_path / "a", layers=LAYERS[:2], holes=0.0)
    b = tmp_path / "b"
    with closing(open_container(a)) as container:
        values = container.manifest
        sections = {name: bytes(container.section(name)) for name in container.names}
    codes = np.frombuffer(sections["level0.codes"], np.int8).reshape(-1, toy.DIM).copy()
    codes[[3, 4, 60, 200, 400, 401, 700, 900]] *= -1
    codes[900, :8] *= -1
    sections["level0.codes"] = codes.tobytes()
    b.write_bytes(b"".join(encode_container(values, sections)))
    (found,) = compare(a, b).levels
    assert (found.only_a, found.only_b, found.changed) == (0, 0, 8)
    assert found.same == 2 * toy.ROWS * toy.COLUMNS - 8
    assert found.cosine["min"] == -1.0 and found.cosine["p95"] > -1.0
    assert [place.cosine for place in found.most_changed] == [-1.0] * 5
    assert_counted(found, content(a), content(b))


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ((toy.SPRING, toy.WINTER), (toy.WINTER, toy.SPRING), 2),
        ((toy.SPRING,), (toy.WINTER, toy.SPRING), 1),
        ((toy.WINTER, toy.SPRING), (toy.SPRING,), 1),
        ((toy.SPRING, toy.WINTER), (toy.AUTUMN, toy.WINTER), 1),
        ((toy.SPRING,), (toy.AUTUMN,), 0),
    ],
)
def test_the_same_imagery_is_compared_whatever_its_number(
    tmp_path: Path, ours: Any, theirs: Any, same: int
) -> None:
    a, b = (write(tmp_path / n, layers=v, holes=0.0) for n, v in (("a", ours), ("b", theirs)))
    (found,) = compare(a, b).levels
    fewest = min(len(ours), len(theirs))
    assert found.same == 36 * same
    assert found.changed == 36 * (fewest - same)
    assert found.only_a == 36 * (len(ours) - fewest)
    assert found.only_b == 36 * (len(theirs) - fewest)


def test_vectors_that_tiles_share_are_compared_tile_by_tile(tmp_path: Path) -> None:
    a = toy.write_toy_pack(tmp_path / "a", water=True)
    b = toy.write_toy_pack(tmp_path / "b", water=False)
    with open_pack(a) as pack:
        assert pack.manifest.levels[0].vectors < pack.levels[0].count
    found = compare(a, b)
    held = content(a), content(b)
    assert found.levels[0].changed == sum(held[0][p] != held[1][p] for p in held[0])
    assert 40 < found.levels[0].changed < 63
    assert_counted(found.levels[0], *held)
    assert compare(b, a).levels[0].changed == found.levels[0].changed


# Packs that are alike.


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("plain") / "plain.s4gpack"
    toy.write_toy_pack(path, range(12), range(12), footprints_m=(80.0, 160.0))
    return path


def write(path: Path, **given: Any) -> Path:
    found: Path = toy.write_toy_pack(path, **{"rows": range(6), "columns": range(6), **given})
    return found


def test_a_copy_is_identical(tmp_path: Path, plain: Path) -> None:
    shutil.copy(plain, tmp_path / "copy")
    assert compare(plain, tmp_path / "copy") == PackDiff(True, (), ())
    assert compare(plain, plain, 80.0) == PackDiff(True, (), ())
    assert not compare(plain, plain).different


def test_the_name_of_a_tool_and_what_was_measured_are_no_difference(
    tmp_path: Path, plain: Path
) -> None:
    other = toy.write_toy_pack(
        tmp_path / "b", range(12), range(12), footprints_m=(80.0, 160.0), tool="another", found=0.5
    )
    found = compare(plain, other)
    assert (found.identical, found.differences, found.different) == (False, (), False)
    assert [(level.only_a, level.only_b, level.changed) for level in found.levels] == [
        (0, 0, 0)
    ] * 2
    assert [level.cosine for level in found.levels] == [{}, {}]
    assert [level.most_changed for level in found.levels] == [(), ()]


def test_parts_put_together_do_not_differ_from_the_whole(tmp_path: Path, plain: Path) -> None:
    out, paths = tmp_path / "out", []
    with open_pack(plain) as pack:
        box = pack.bounds
        for i, (first, last) in enumerate(((0.0, 0.9), (0.1, 1.0))):
            paths.append(tmp_path / str(i))
            width = box.east - box.west
            part = BBox(box.west + first * width, box.south, box.west + last * width, box.north)
            extract_pack(pack, part, paths[-1])
    with open_pack(paths[0]) as one, open_pack(paths[1]) as other:
        merge_packs([one, other], out, CombineOptions())
    assert not compare(plain, out).different
    found = compare(plain, paths[0])
    assert [d.what for d in found.differences] == ["bounds"]
    assert found.levels[0].only_a > 0 and found.levels[0].only_b == found.levels[0].changed == 0


# What packs say.


@pytest.mark.parametrize(
    ("given", "what", "values"),
    [
        (
            {"spec": dataclasses.replace(toy.SPEC, model_id="71" * 32)},
            "encoder model_id",
            ("70" * 32, "71" * 32),
        ),
        (
            {"spec": dataclasses.replace(toy.SPEC, mean=(0.5, 0.4, 0.5))},
            "encoder mean",
            ([0.5, 0.5, 0.5], [0.5, 0.4, 0.5]),
        ),
        (
            {"spec": dataclasses.replace(toy.SPEC, provenance={"recipe": "b"})},
            "encoder provenance",
            ({"recipe": "toy"}, {"recipe": "b"}),
        ),
        ({"headings_deg": (0.0, 90.0)}, "headings", ([0.0], [0.0, 90.0])),
        ({"frame": LocalFrame(47.0, 8.5)}, "frame", ([47.0, 8.0], [47.0, 8.5])),
        ({"matrix": toy.matrix_of(16)}, "projection", ("leading", "matrix")),
        ({"matrix": toy.matrix_of(8)}, "dims", (16, 8)),
        (
            {"layers": (toy.WINTER,)},
            "imagery",
            ([dataclasses.asdict(toy.SPRING)], [dataclasses.asdict(toy.WINTER)]),
        ),
        ({"bounds": BBox(7.0, 46.0, 9.0, 48.0)}, "bounds", (None, [7.0, 46.0, 9.0, 48.0])),
        ({"min_valid": 0.5}, "min_valid", (0.6, 0.5)),
        ({"footprints_m": (80.0, 160.0)}, "levels", ([80.0], [80.0, 160.0])),
        ({"graph_min_vectors": 12}, "level 80 m search", None),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_packs_say_differently_is_named(
    tmp_path: Path, given: dict[str, Any], what: str, values: tuple[Any, Any] | None
) -> None:
    size = {"rows": range(20), "columns": range(20), "holes": 0.0}
    a, b = write(tmp_path / "a", **size), write(tmp_path / "b", **size, **given)
    found = differences(a, b)
    assert what in found
    if what == "level 80 m search":
        assert found == {what: ("exact, step 1, ef 0", found[what][1])}
        assert found[what][1].startswith(("sample, step ", "graph, step "))
    elif values is not None and values[0] is not None:
        assert found[what] == values
    else:
        assert values is not None and found[what][1] == values[1]
    assert compare(a, b).different
    assert {w: (y, x) for w, (x, y) in found.items()} == differences(b, a)


def test_other_directions_are_named_and_vectors_are_not_compared(tmp_path: Path) -> None:
    a = write(tmp_path / "a", matrix=toy.matrix_of(8, seed=1))
    b = write(tmp_path / "b", matrix=toy.matrix_of(8, seed=2))
    found = compare(a, b)
    assert [d.what for d in found.differences] == ["directions"]
    assert len(found.differences[0].a) == len(found.differences[0].b) == 12
    assert found.levels == ()


@pytest.mark.parametrize(
    ("given", "compared"),
    [
        ({"spec": dataclasses.replace(toy.SPEC, temperature=0.2)}, False),
        ({"frame": LocalFrame(47.0, 8.0001)}, False),
        ({"matrix": toy.matrix_of(16)}, False),
        ({"shift_m": 7.0}, False),
        ({"headings_deg": (0.0, 90.0)}, True),
        ({"layers": (toy.WINTER,)}, True),
        ({"min_valid": 0.5}, True),
        ({"spec": dataclasses.replace(toy.SPEC, provenance={})}, True),
    ],
    ids=["encoder", "frame", "projection", "grid", "headings", "imagery", "valid", "provenance"],
)
def test_vectors_are_compared_where_they_can_be(
    tmp_path: Path, given: dict[str, Any], compared: bool
) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", **given)
    assert bool(compare(a, b).levels) == compared


def test_another_grid_is_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a", footprints_m=(80.0, 160.0))
    b = write(tmp_path / "b", footprints_m=(80.0, 160.0), shift_m=7.0)
    found = compare(a, b)
    assert [d.what for d in found.differences] == ["level 80 m grid", "level 160 m grid"]
    assert found.differences[0].a["west_m"] == toy.WEST_M
    assert found.differences[0].b["west_m"] == toy.WEST_M + 7


def test_another_picture_is_named(tmp_path: Path) -> None:
    grey = np.full((60, 60, 3), 90, np.uint8)
    a = write(tmp_path / "a", picture=(grey, 4.0))
    b = write(tmp_path / "b", picture=(grey + 40, 4.0))
    c = write(tmp_path / "c")
    assert list(differences(a, b)) == ["overview"]
    assert differences(a, c)["overview"][1] is None
    assert differences(c, a)["overview"][0] is None
    assert len(differences(c, a)["overview"][1]) == 12


def test_who_signed_is_a_difference(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need cryptography (the pack extra)")
    a = write(tmp_path / "a")
    b = Path(shutil.copy(a, tmp_path / "b"))
    key = sign_pack(b, make_keys(tmp_path / "ops")[0])
    found = compare(a, b)
    assert not found.identical
    assert found.differences == (Difference("signed by", None, key),)
    assert found.levels[0].changed == 0


def test_one_level_is_looked_at(plain: Path, tmp_path: Path) -> None:
    b = toy.write_toy_pack(tmp_path / "b", range(12), range(12), footprints_m=(80.0, 160.0), seed=1)
    assert [level.level_m for level in compare(plain, b).levels] == [80.0, 160.0]
    assert [level.level_m for level in compare(plain, b, 160.0).levels] == [160.0]
    fine = toy.write_toy_pack(tmp_path / "fine", range(12), range(12))
    found = compare(plain, fine, 80.0)
    assert (found.different, found.differences) == (False, ())
    with pytest.raises(InputError) as error:
        compare(plain, fine, 160.0)
    assert str(error.value) == f"{fine}: has no level of 160 m; choose of 80"
    assert differences(plain, fine)["levels"] == ([80.0, 160.0], [80.0])


def test_packs_too_far_apart_are_refused(tmp_path: Path) -> None:
    far = range(70_000, 70_002)
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", rows=far, columns=far, bounds=BBox(20.0, 30.0, 21.0, 31.0))
    with pytest.raises(InputError) as error:
        compare(a, b)
    assert str(error.value) == (
        f"{a}, {b}: lie too far apart to be compared (70002 x 70002 cells, at most 4294967295)"
    )


def damaged_copy(path: Path, out: Path) -> Path:
    """A copy whose last byte is another."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    return out


def test_a_damaged_pack_is_never_the_same(tmp_path: Path, plain: Path) -> None:
    bad = damaged_copy(plain, tmp_path / "bad")
    for pair in ((plain, bad), (bad, plain), (bad, bad)):
        with pytest.raises(IntegrityError) as error:
            compare(*pair)
        with closing(open_container(bad)) as container:
            last = container.names[-1]
        assert str(error.value) == (
            f"{bad}: damaged or altered: section {last} does not match its SHA-256" + REMEDY
        )


def rewrite(path: Path, out: Path, **sections: Callable[[bytes], bytes]) -> Path:
    """A copy with other sections, whose hashes are right."""
    with closing(open_container(path)) as container:
        parts = {name: bytes(container.section(name)) for name in container.names}
        for name, change in sections.items():
            parts[name.replace("__", ".")] = change(parts[name.replace("__", ".")])
        out.write_bytes(b"".join(encode_container(container.manifest, parts)))
    return out


def test_a_level_that_none_could_be_is_refused(tmp_path: Path) -> None:
    from s4g.tilepacks.columns import decode_column, encode_column

    a = write(tmp_path / "a", rows=range(20), columns=range(20), water=True)
    with open_pack(a) as pack:
        count, vectors = pack.levels[0].count, pack.manifest.levels[0].vectors

    def column(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
        def altered(data: bytes) -> bytes:
            values = decode_column(data, count).copy()
            change(values)
            return encode_column(values)

        return altered

    zero = rewrite(a, tmp_path / "zero", level0__codes=lambda d: bytes(toy.DIM) + d[toy.DIM :])
    twice = rewrite(
        a, tmp_path / "twice", level0__cells=column(lambda cells: np.put(cells, 1, cells[0]))
    )
    beyond = rewrite(
        a, tmp_path / "beyond", level0__vectors=column(lambda v: np.put(v, 1, vectors))
    )
    short = rewrite(a, tmp_path / "short", level0__vectors=lambda d: d[:10])
    for path, reason in (
        (zero, "level0: a vector is zero"),
        (twice, "section level0.cells names a place twice"),
        (beyond, "section level0.vectors does not name every vector"),
        (short, "section level0.vectors "),
    ):
        with pytest.raises(IntegrityError) as error:
            compare(a, path)
        assert str(error.value).startswith(f"{path}: damaged or altered: {reason}")
        assert str(error.value).endswith(REMEDY) and "\n" not in str(error.value)


def test_a_closed_pack_is_refused(plain: Path) -> None:
    with open_pack(plain) as closed:
        pass
    with open_pack(plain) as pack, pytest.raises(InputError) as error:
        compare_packs(pack, closed)
    assert str(error.value) == f"{plain}: the pack is closed; open it again"


def test_progress_counts_what_both_have(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    steps: list[int] = []

    @contextmanager
    def show(description: str, total: int) -> Iterator[Callable[[int], None]]:
        seen.append((description, total))
        yield steps.append

    a, b = write(tmp_path / "a"), write(tmp_path / "b", columns=range(2, 9))
    with open_pack(a) as one, open_pack(b) as other:
        compare_packs(one, other, None, show)
    both = len(content(a).keys() & content(b).keys())
    assert seen == [("level 80 m: comparing", both)]
    assert sum(steps) == both


# The command.


def test_exit_code_is_0_where_nothing_differs(run: Run, tmp_path: Path, plain: Path) -> None:
    copy = shutil.copy(plain, tmp_path / "copy")
    assert run("diff", plain, copy) == (0, f"{plain} and {copy} are identical\n", "")
    code, out, err = run("diff", plain, copy, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "a": str(plain),
        "b": str(copy),
        "identical": True,
        "different": False,
        "differences": [],
        "levels": [],
    }
    other = toy.write_toy_pack(tmp_path / "b", range(12), range(12), tool="x", footprints_m=(80.0,))
    code, out, _ = run("diff", plain, other, "--level", 80)
    count = len(content(other))
    assert (code, out) == (
        0,
        f"level 80 m: 0 tiles only in the first, 0 only in the second, {count} with the same "
        "vector, 0 with another\n"
        f"{plain} and {other} hold the same; only how they were written differs\n",
    )


def test_exit_code_is_1_where_something_differs(run: Run, tmp_path: Path) -> None:
    a = write(tmp_path / "a", holes=0.0)
    b = write(tmp_path / "b", columns=range(4, 10), holes=0.0, min_valid=0.5, seed=1)
    with open_pack(a) as one, open_pack(b) as other:
        found = compare_packs(one, other)
        boxes = [
            json.dumps([p.bounds.west, p.bounds.south, p.bounds.east, p.bounds.north])[:59] + "…"
            for p in (one, other)
        ]
    (level,) = found.levels
    code, out, err = run("diff", a, b)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"bounds: {boxes[0]} | {boxes[1]}",
        "min_valid: 0.6 | 0.5",
        "level 80 m: 24 tiles only in the first, 24 only in the second, 0 with the same vector, "
        "12 with another",
        "  cosine of the changed ones: "
        + ", ".join(f"{name} {value}" for name, value in level.cosine.items()),
        *(
            f"  changed most at {place.lat:.6f},{place.lon:.6f}: cosine {place.cosine}"
            for place in level.most_changed
        ),
    ]
    assert len(level.most_changed) == 5 and list(level.cosine) == ["min", "p5", "p50", "p95"]
    code, out, err = run("diff", a, b, "--json")
    assert (code, err) == (1, "")
    told = json.loads(out)
    assert (told["identical"], told["different"]) == (False, True)
    assert [d["what"] for d in told["differences"]] == ["bounds", "min_valid"]
    assert told["levels"] == [
        {
            **dataclasses.asdict(level),
            "most_changed": [dataclasses.asdict(place) for place in level.most_changed],
        }
    ]


def test_tiles_alone_make_a_difference(run: Run, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a"), write(tmp_path / "b", seed=1)
    assert not differences(a, b)
    assert run("diff", a, b)[0] == 1
    fewer = write(tmp_path / "fewer", holes=0.5)
    (level,) = compare(a, fewer).levels
    assert (level.changed, level.only_b) == (0, 0) and level.only_a > 0
    assert run("diff", a, fewer)[0] == run("diff", fewer, a)[0] == 1


def test_exit_code_is_2_where_a_file_is_no_pack(run: Run, tmp_path: Path, plain: Path) -> None:
    missing, bad = tmp_path / "missing", damaged_copy(plain, tmp_path / "bad")
    (tmp_path / "no").write_bytes(b"something else")
    for path, message in (
        (missing, f"{missing}: cannot be read (No such file or directory)"),
        (
            tmp_path / "no",
            f"{tmp_path / 'no'}: not a pack of s4g (it starts with b'somethin'); give a .s4gpack "
            "file",
        ),
    ):
        assert run("diff", plain, path) == (2, "", f"error: {message}\n")
    code, out, err = run("diff", bad, plain)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {bad}: damaged or altered: ") and len(err.splitlines()) == 1
    code, out, err = run("diff", plain, plain, "--level", 7)
    assert (code, out, err) == (2, "", f"error: {plain}: has no level of 7 m; choose of 80, 160\n")


def test_what_one_pack_does_not_say_is_none(run: Run, tmp_path: Path) -> None:
    a = write(tmp_path / "a", picture=(np.full((60, 60, 3), 90, np.uint8), 4.0))
    b = write(tmp_path / "b")
    code, out, _ = run("diff", a, b)
    assert code == 1
    assert out.splitlines()[0] == f"overview: {differences(a, b)['overview'][0]} | none"
