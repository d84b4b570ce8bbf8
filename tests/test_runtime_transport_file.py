"""Files that grow: rotated, capped, torn lines, full disks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from s4g.core.errors import InputError
from s4g.runtime.sink import parse_sink_url
from s4g.runtime.transport_file import CappedFile, Stdout, open_file


def lines(*numbers: int) -> bytes:
    return b"".join(b"%06d\n" % number for number in numbers)


def test_messages_are_appended_to_what_is_there(tmp_path: Path) -> None:
    for part in (lines(1), lines(2, 3)):
        file = CappedFile(tmp_path / "f", 0, 0)
        file.send(part)
        file.close()
    assert (tmp_path / "f").read_bytes() == lines(1, 2, 3)


def test_a_line_that_a_power_cut_left_unfinished_is_ended_first(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(lines(1) + b"0000")
    file = CappedFile(tmp_path / "f", 0, 0)
    assert (tmp_path / "f").read_bytes() == lines(1) + b"0000"  # until there is something to say
    file.send(lines(2))
    file.send(lines(3))
    file.close()
    assert (tmp_path / "f").read_bytes() == lines(1) + b"0000\n" + lines(2, 3)


def test_a_full_part_is_moved_on_and_the_oldest_deleted(tmp_path: Path) -> None:
    file = CappedFile(tmp_path / "f", 20, 2)  # two lines a part
    for number in range(9):
        file.send(lines(number))
    file.close()
    parts = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert parts == {"f": lines(8), "f.1": lines(6, 7), "f.2": lines(4, 5)}
    assert sum(map(len, parts.values())) <= 3 * 20


def test_without_older_parts_a_full_file_begins_anew(tmp_path: Path) -> None:
    file = CappedFile(tmp_path / "f", 20, 0)
    for number in range(5):
        file.send(lines(number))
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == lines(4)


def test_a_message_larger_than_a_part_has_one_for_itself(tmp_path: Path) -> None:
    file = CappedFile(tmp_path / "f", 20, 5)
    for part in (lines(1), lines(*range(10)), lines(2)):
        file.send(part)
    file.close()
    assert (tmp_path / "f.1").read_bytes() == lines(*range(10))
    assert (tmp_path / "f.2").read_bytes() == lines(1)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from s4g.runtime.transport_file import CappedFile

# A disk with room for 25 bytes, as far as this process can tell.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (25, resource.RLIM_INFINITY))
file = CappedFile(Path(sys.argv[1]), 0, 0)
failed = 0
for number in range(6):
    if number == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    try:
        file.send(b"%09d\\n" % number)
    except OSError:
        failed += 1
    file.receive()
file.close()
print(failed)
"""


def test_a_full_disk_leaves_whole_lines_and_room_is_used_again(tmp_path: Path) -> None:
    # 25 bytes hold two lines and a half: the half must not stay.
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "f")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
    assert (tmp_path / "f").read_text().splitlines() == [f"{n:09d}" for n in (0, 1, 4, 5)]


def test_a_device_without_room_fails_each_time() -> None:
    file = CappedFile(Path("/dev/full"), 10, 1)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left on device"):
            file.send(lines(1, 2, 3))
    file.close()


def test_a_pipe_that_nobody_reads_fails_rather_than_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    file = CappedFile(tmp_path / "pipe", 10, 1)
    with pytest.raises(BlockingIOError):
        for _ in range(100_000):
            file.send(lines(1, 2, 3))
    reader = os.open(tmp_path / "pipe", os.O_RDONLY)
    assert os.read(reader, 21) == lines(1, 2, 3)
    file.close()
    os.close(reader)


def test_a_folder_that_is_gone_fails_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    file = CappedFile(folder / "f", 8, 1)
    file.send(lines(1))
    (folder / "f").unlink()
    folder.rmdir()
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            file.send(lines(2))  # it is time for another part
    folder.mkdir()
    file.send(lines(3))
    file.close()
    assert (folder / "f").read_bytes() == lines(3)


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        ("{}", "a folder; give the name of a file in it"),
        ("{}/no/f", "no folder {}/no; make it first"),
        ("{}/locked?keep=-1", "keep=-1 is no number from 0 to 10000"),
        ("{}/f?rotate_mb=0", "rotate_mb=0 is no number from 0.001 to 1e+06"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, rest: str, line: str) -> None:
    url = f"jsonl:{rest.format(tmp_path)}"
    with pytest.raises(InputError) as refused:
        open_file(parse_sink_url(url))
    assert str(refused.value) == f"--to {url}: {line.format(tmp_path)}"


def test_a_file_that_may_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so that the system's answer is put in its place.
    def no(*_: Any) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "open", no)
    with pytest.raises(InputError) as refused:
        open_file(parse_sink_url(f"jsonl:{tmp_path}/f"))
    assert str(refused.value) == (
        f"--to jsonl:{tmp_path}/f: cannot be opened (Permission denied); check its rights and the "
        "disk"
    )


def test_standard_output_gets_the_lines(capfd: pytest.CaptureFixture[str]) -> None:
    out = open_file(parse_sink_url("jsonl:-"))
    assert isinstance(out, Stdout)
    out.send(lines(1, 2))
    assert capfd.readouterr().out == lines(1, 2).decode()
