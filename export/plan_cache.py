"""Plans and kernel timings kept between builds, under `~/.cache/s4g/tensorrt`.

A plan is kept under the SHA-256 of what decides its content (`core.plan.Identity`), so a hit is
the same build and saves minutes. Timings are kept per TensorRT version and GPU and make other
builds faster. Several builders may run at once: every access holds a lock, files are replaced
whole, and what is damaged is told, dropped and made again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError, S4GError
from ..core.files import sha256_bytes, write_bytes
from ..core.plan import Identity, PlanInfo, read_plan, read_sidecar, sidecar_path
from ..core.plan_write import write_plan

# A Jetson's disk is small; beyond this the plans used longest ago go first.
MAX_BYTES = 4 << 30
_TIMING_MAGIC = b"s4g timing cache 1\n"
_DIGEST_BYTES = 64

Tell = Callable[[str], None]
# Unites two serialised timing caches of the same TensorRT and GPU.
Unite = Callable[[bytes, bytes], bytes]


@dataclass(frozen=True)
class PlanCache:
    """The cache in one folder.

    Attributes:
        folder: where it lies; made when first written to.
        tell: hears about damaged entries.
        max_bytes: of all plans together.
    """

    folder: Path
    tell: Tell
    max_bytes: int = MAX_BYTES

    def find(self, identity: Identity) -> tuple[bytes, PlanInfo] | None:
        """Return the plan of an identical build, or None; a damaged one is dropped and told."""
        path = self._plan(identity)
        with self._harmless(), self._locked():
            if not path.exists() and not sidecar_path(path).exists():
                return None
            try:
                data, info = read_plan(path)
            except InputError as error:
                self._drop(path, str(error).partition("; ")[0])
                return None
            if info.identity != identity:
                self._drop(path, f"{path}: holds the plan of another build")
                return None
            os.utime(path)  # used just now: the last to make room for others
            return data, info
        return None

    def keep(self, data: bytes, info: PlanInfo) -> None:
        """Keep a plan; the ones used longest ago go where all take too much room."""
        with self._harmless(), self._locked():
            path = self._plan(info.identity)
            if _is_there(path, info):
                os.utime(path)
                return
            write_plan(path, data, info, overwrite=True)
            self._make_room(path)

    def read_timings(self, tensorrt: str, gpu: str, compute_capability: str) -> bytes:
        """Return the timings kept for a TensorRT version and GPU, empty where there are none."""
        with self._harmless(), self._locked():
            return self._read_timings(self._timings(tensorrt, gpu, compute_capability))
        return b""

    def add_timings(
        self, tensorrt: str, gpu: str, compute_capability: str, timings: bytes, unite: Unite
    ) -> None:
        """Keep timings of a TensorRT version and GPU, beside what other builders have kept."""
        with self._harmless(), self._locked():
            path = self._timings(tensorrt, gpu, compute_capability)
            kept = self._read_timings(path)
            whole = unite(timings, kept) if kept else timings
            head = _TIMING_MAGIC + sha256_bytes(whole).encode()
            write_bytes(path, head + whole, overwrite=True)

    def _read_timings(self, path: Path) -> bytes:
        """Read kept timings; TensorRT would parse damaged ones, so they carry a hash."""
        if not path.is_file():
            return b""
        content = path.read_bytes()
        body = len(_TIMING_MAGIC) + _DIGEST_BYTES
        timings = content[body:]
        if content[:body] == _TIMING_MAGIC + sha256_bytes(timings).encode():
            return timings
        self.tell(f"{path}: damaged; timings are measured again")
        path.unlink()
        return b""

    def _plan(self, identity: Identity) -> Path:
        return self.folder / f"{identity.key}.plan"

    def _timings(self, tensorrt: str, gpu: str, compute_capability: str) -> Path:
        names = f"{gpu} {compute_capability} {tensorrt}"
        return self.folder / f"{re.sub('[^0-9A-Za-z.]+', '-', names)}.timings"

    def _drop(self, path: Path, reason: str) -> None:
        self.tell(f"{reason}; it is dropped from the cache")
        self._remove(path)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        sidecar_path(path).unlink(missing_ok=True)

    def _make_room(self, newest: Path) -> None:
        for left in self.folder.glob(".*.tmp*"):  # by a killed build: the lock is ours
            left.unlink()
        plans = [path for path in self.folder.glob("*.plan") if not path.name.startswith(".")]
        plans.sort(key=lambda path: path.stat().st_mtime_ns)
        total = sum(path.stat().st_size for path in plans)
        for path in plans:
            if total > self.max_bytes and path != newest:
                total -= path.stat().st_size
                self._remove(path)

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        """Tell about a cache that cannot be read or written: it must stop no build."""
        try:
            yield
        except (OSError, S4GError) as error:
            self.tell(f"{self.folder}: the cache cannot be used ({error}); going on without")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the cache's lock, across processes.

        Plans are read, hashed and written under it: other builders wait for the disk meanwhile.
        """
        import fcntl

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
            yield


def _is_there(path: Path, info: PlanInfo) -> bool:
    """Return whether the cache holds a plan already; its content is checked when it is used."""
    try:
        kept = read_sidecar(path)
        return kept.plan_sha256 == info.plan_sha256 and path.stat().st_size == info.plan_bytes
    except (OSError, InputError):
        return False
