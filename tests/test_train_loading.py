"""Batches arrive as planned, whole, once, and say what could not be read."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from s4g.core.errors import InputError, S4GError
from s4g.core.images import encode_rgb
from s4g.train import workers
from s4g.train.dataset import PairSet, UnreadableImageError
from s4g.train.layout import FileImages
from s4g.train.loading import (
    LoadedBatch,
    PairLoader,
    iterate_images,
)
from s4g.train.relations import Relations

PLACES = 12
VIEWS = 2  # queries a place
SIZES = ((10, 16), (8, 8))

Plan = npt.NDArray[np.int32]


def brightness(place: int) -> int:
    return 10 + 20 * place


def make_pairs(folder: Path) -> PairSet:
    """24 queries, two of each of 12 references; a picture's brightness is its place."""
    queries = [f"q{i}.png" for i in range(PLACES * VIEWS)]
    references = [f"r{i}.png" for i in range(PLACES)]
    for index, name in enumerate(queries + references):
        place = index // VIEWS if index < len(queries) else index - len(queries)
        image = np.full((20, 32, 3), brightness(place), np.uint8)
        (folder / name).write_bytes(encode_rgb(image, ".png"))
    query = np.arange(PLACES * VIEWS, dtype=np.int32)
    reference = query // VIEWS
    return PairSet(
        "toy",
        FileImages(folder, queries),
        FileImages(folder, references),
        query,
        reference,
        np.ones(len(query), np.float32),
        Relations.from_edges(query, reference, len(query)),
    )


@pytest.fixture
def pairs(tmp_path: Path) -> PairSet:
    return make_pairs(tmp_path)


@pytest.fixture(scope="module")
def in_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PairLoader]:
    """One loader with two processes for all tests that only read."""
    made = make_pairs(tmp_path_factory.mktemp("pairs"))
    loader = PairLoader(made, *SIZES, 2, 0, seed=0, others=[(made.references, (4, 6))])
    yield loader
    loader.close()


def open_loader(pairs: PairSet, limit: int = 0, jpeg: float = 0.0, **ranks: int) -> PairLoader:
    others = [(pairs.references, (4, 6))]
    return PairLoader(pairs, *SIZES, 0, limit, 0, jpeg=jpeg, others=others, **ranks)


def plan(batches: int = 6, size: int = 4, seed: int = 0) -> Plan:
    order = np.random.default_rng(seed).permutation(PLACES * VIEWS).astype(np.int32)
    return order[: batches * size].reshape(batches, size)


def check(batch: LoadedBatch, planned: Plan) -> None:
    assert batch.pairs.tolist() == planned.tolist()
    assert batch.queries.shape == (len(planned), 10, 16, 3)
    assert batch.references.shape == (len(planned), 8, 8, 3)
    expected = torch.tensor([brightness(int(p) // VIEWS) for p in planned])[:, None, None, None]
    assert torch.all(batch.queries == expected) and torch.all(batch.references == expected)
    assert batch.valid.tolist() == [True] * len(planned)


def test_batches_come_in_the_planned_order(pairs: PairSet) -> None:
    batches = plan()
    for batch, planned in zip(open_loader(pairs).epoch(batches), batches, strict=True):
        check(batch, planned)
        assert batch.all_pairs.tolist() == planned.tolist()


def test_processes_deliver_in_the_planned_order_and_live_on(in_workers: PairLoader) -> None:
    alive = []
    for epoch in range(3):
        batches = plan(seed=epoch)
        for batch, planned in zip(in_workers.epoch(batches), batches, strict=True):
            check(batch, planned)
        alive.append({process.pid for process in multiprocessing.active_children()})
    assert len(alive[0]) == 2
    assert alive[0] == alive[1] == alive[2]


def test_an_epoch_that_was_left_early_leaves_nothing_to_the_next(in_workers: PairLoader) -> None:
    first = in_workers.epoch(plan(seed=1))
    next(first)
    first.close()  # type: ignore[attr-defined]
    batches = plan(batches=2, seed=2)
    for batch, planned in zip(in_workers.epoch(batches), batches, strict=True):
        check(batch, planned)


def test_ranks_share_each_batch_in_contiguous_parts(pairs: PairSet) -> None:
    batches = plan()
    shares = [list(open_loader(pairs, rank=rank, world=2).epoch(batches)) for rank in range(2)]
    for planned, *parts in zip(batches, *shares, strict=True):
        assert torch.cat([part.pairs for part in parts]).tolist() == planned.tolist()
        for part in parts:
            assert part.all_pairs.tolist() == planned.tolist()
            check(part, part.pairs.numpy())


def test_a_batch_that_the_ranks_cannot_share_is_refused(pairs: PairSet) -> None:
    with pytest.raises(InputError) as error:
        next(open_loader(pairs, rank=0, world=3).epoch(plan()))
    assert str(error.value) == (
        "batches of 4 pairs cannot be shared by 3 processes; make batch_pairs a multiple of 3"
    )


def test_a_resumed_epoch_gives_the_very_batches_that_were_left(
    pairs: PairSet, in_workers: PairLoader
) -> None:
    whole = list(open_loader(pairs, jpeg=0.5).epoch(plan()))
    rest = list(open_loader(pairs, jpeg=0.5).epoch(plan(), first=4))
    assert len(rest) == 2
    for batch, other in zip(whole[4:], rest, strict=True):
        assert torch.equal(batch.queries, other.queries)
        assert torch.equal(batch.references, other.references)
        assert torch.equal(batch.pairs, other.pairs)


def test_loading_draws_no_random_number_of_the_model(
    pairs: PairSet, in_workers: PairLoader
) -> None:
    before = torch.get_rng_state()
    for loader in (open_loader(pairs, jpeg=1.0), in_workers):
        assert len(list(loader.epoch(plan()))) == 6
    assert torch.equal(torch.get_rng_state(), before)


def test_recompression_changes_pictures_a_little(tmp_path: Path) -> None:
    pairs = make_pairs(tmp_path)
    noise = np.random.default_rng(0).integers(90, 160, (10, 16, 3), dtype=np.uint8)
    (tmp_path / "q5.png").write_bytes(encode_rgb(noise, ".png"))
    batch = np.array([[5, 0]], np.int32)
    plain = next(open_loader(pairs).epoch(batch)).queries[0].int()
    again = next(open_loader(pairs, jpeg=1.0).epoch(batch)).queries[0].int()
    assert 0 < (plain - again).abs().float().mean() < 20


def test_an_unreadable_query_blackens_its_pair_and_is_named_once(
    pairs: PairSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q2.png").write_bytes(b"no picture")
    loader = open_loader(pairs, limit=1)
    for _ in range(2):
        batch = next(loader.epoch(np.array([[1, 2, 4, 6]], np.int32)))
        assert batch.valid.tolist() == [True, False, True, True]
        assert not batch.queries[1].any() and not batch.references[1].any()
        assert batch.queries[0].any() and batch.references[2].any()
    assert loader.unreadable.names == ["q2.png"]
    assert capsys.readouterr().err == (
        f"left out (1 of at most 1): {tmp_path / 'q2.png'}: not an image that can be decoded; "
        "replace or remove the file\n"
    )


def test_a_reference_of_several_pairs_counts_once(pairs: PairSet, tmp_path: Path) -> None:
    (tmp_path / "r1.png").unlink()
    loader = open_loader(pairs, limit=1)
    batch = next(loader.epoch(np.array([[2, 3, 4, 6]], np.int32)))
    assert batch.valid.tolist() == [False, False, True, True]
    assert loader.unreadable.names == ["r1.png"]


def test_one_unreadable_picture_too_many_ends_it_with_their_names(
    pairs: PairSet, tmp_path: Path
) -> None:
    for index in (0, 3, 7, 9):
        (tmp_path / f"q{index}.png").unlink()
    with pytest.raises(InputError) as error:
        list(open_loader(pairs, limit=3).epoch(np.arange(24, dtype=np.int32).reshape(6, 4)))
    assert str(error.value) == (
        "toy: 4 unreadable images, unreadable_limit is 3: q0.png, q3.png, q7.png, …; "
        "restore the files or raise unreadable_limit"
    )


def test_what_a_process_cannot_read_is_counted_here(pairs: PairSet, tmp_path: Path) -> None:
    (tmp_path / "q2.png").unlink()
    (tmp_path / "r5.png").unlink()
    loader = PairLoader(pairs, *SIZES, 1, 1, 0)
    with pytest.raises(InputError) as error:
        list(loader.epoch(np.arange(24, dtype=np.int32).reshape(6, 4)))
    assert str(error.value) == (
        "toy: 2 unreadable images, unreadable_limit is 1: q2.png, r5.png; "
        "restore the files or raise unreadable_limit"
    )


def test_an_error_in_a_process_arrives_as_its_one_line(pairs: PairSet) -> None:
    too_wide = 70_000  # a JPEG ends at 65,500 columns
    loader = PairLoader(pairs, (1, too_wide), (8, 8), 1, 0, 0, jpeg=1.0)
    with pytest.raises(S4GError) as error:
        next(loader.epoch(np.array([[0]], np.int32)))
    assert str(error.value) == f"cannot encode an image of shape (1, {too_wide}, 3) as .jpg"


def test_closing_ends_the_processes(pairs: PairSet) -> None:
    before = set(multiprocessing.active_children())
    loader = PairLoader(pairs, *SIZES, 1, 0, 0)
    assert len(list(loader.epoch(plan()))) == 6
    (started,) = set(multiprocessing.active_children()) - before
    loader.close()
    started.join(60)
    assert started.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_a_process_that_died_is_one_line_with_a_remedy(pairs: PairSet) -> None:
    before = {process.pid for process in multiprocessing.active_children()}
    loader = PairLoader(pairs, *SIZES, 1, 0, 0)
    batches = loader.epoch(np.tile(np.arange(4, dtype=np.int32), (50, 1)))
    next(batches)
    (started,) = {process.pid for process in multiprocessing.active_children()} - before
    assert started is not None
    os.kill(started, signal.SIGKILL)
    with pytest.raises(S4GError) as error:
        list(batches)
    assert str(error.value) == (
        "a process that reads images died (exit code -9); if memory ran out, lower --workers"
    )


def test_the_trainers_own_handlers_are_left_in_place(in_workers: PairLoader) -> None:
    numbers = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    next(in_workers.epoch(plan()))
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_signal_to_the_whole_group_does_not_end_the_processes(in_workers: PairLoader) -> None:
    assert len(list(in_workers.epoch(plan()))) == 6
    for process in multiprocessing.active_children():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
    assert len(list(in_workers.epoch(plan(seed=3)))) == 6


def test_a_trainer_that_fails_with_processes_alive_still_ends(tmp_path: Path) -> None:
    make_pairs(tmp_path)
    code = f"""
import numpy as np
from pathlib import Path
from s4g.train.layout import FileImages
from s4g.train.loading import iterate_images
if __name__ == "__main__":
    images = FileImages(Path({str(tmp_path)!r}), [f"r{{i}}.png" for i in range(12)])
    kept = iterate_images(images, 4, 4, 1, 1)
    next(kept)
    raise SystemExit(7)
"""
    script = tmp_path / "fails.py"
    script.write_text(code)
    assert subprocess.run([sys.executable, str(script)], timeout=120, check=False).returncode == 7


def test_too_little_shared_memory_is_refused_before_a_process_starts(
    pairs: PairSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workers, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: SimpleNamespace(free=64 << 20))
    loader = PairLoader(pairs, (1024, 1024), (1024, 1024), 2, 0, 0)
    with pytest.raises(InputError) as error:
        next(loader.epoch(plan()))
    assert str(error.value) == (
        f"--workers 2: batches made ahead need 96 MiB of shared memory, {tmp_path} has 64 MiB "
        "free; lower --workers or give the container more (docker: --shm-size)"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_images_come_in_order_and_the_last_batch_is_short(pairs: PairSet, workers: int) -> None:
    parts = list(iterate_images(pairs.references, 4, 6, 5, workers))
    assert [part.shape for part in parts] == [(5, 4, 6, 3), (5, 4, 6, 3), (2, 4, 6, 3)]
    seen = np.concatenate(parts)
    assert seen.dtype == np.uint8
    assert seen[:, 0, 0, 0].tolist() == [brightness(i) for i in range(PLACES)]


def test_pictures_to_mine_are_read_by_the_processes_that_read_pairs(
    in_workers: PairLoader,
) -> None:
    list(in_workers.epoch(plan()))
    alive = {process.pid for process in multiprocessing.active_children()}
    rows = np.array([7, 0, 7, 3], np.int32)
    parts = list(in_workers.images(0, 3, rows))
    assert [part.shape for part in parts] == [(3, 4, 6, 3), (1, 4, 6, 3)]
    assert np.concatenate(parts)[:, 0, 0, 0].tolist() == [brightness(i) for i in rows]
    assert {process.pid for process in multiprocessing.active_children()} == alive
    for batch, planned in zip(in_workers.epoch(plan(seed=5)), plan(seed=5), strict=True):
        check(batch, planned)


def test_an_evaluation_refuses_an_unreadable_image(pairs: PairSet, tmp_path: Path) -> None:
    (tmp_path / "r3.png").unlink()
    with pytest.raises(UnreadableImageError) as error:
        list(iterate_images(pairs.references, 4, 6, 5, 0))
    assert str(error.value) == (
        f"{tmp_path / 'r3.png'}: cannot be read (No such file or directory); restore the file"
    )


def test_mining_counts_an_unreadable_image_and_goes_on(pairs: PairSet, tmp_path: Path) -> None:
    (tmp_path / "r3.png").unlink()
    loader = open_loader(pairs, limit=1)
    (images,) = loader.images(0, 50, np.arange(len(pairs.references), dtype=np.int32))
    assert loader.unreadable.names == ["r3.png"]
    assert not images[3].any() and images[2].any()
