"""An engine that remembers: frames that were embedded once are not embedded again."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s4g.core.engine import Embeddings, Engine
from s4g.core.files import atomic_file


class MemoEngine:
    """Wraps an engine; what it told of a batch, and how long that took, is told again at once.

    Attributes:
        owed_s: how much longer the engine took for what was remembered since `settle`.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        """Remember what a file holds, if it is there."""
        self.spec, self.name, self.backend = engine.spec, engine.name, engine.backend
        self._engine, self._path = engine, path
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[Embeddings, float]] = {}
        self._fresh = False
        self.owed_s = 0.0
        if path.exists():
            self._read()

    def embed(self, images: npt.NDArray[np.uint8]) -> Embeddings:
        """Embed a batch (B, S, S, 3) uint8, or remember what it gave."""
        began_s = time.monotonic()
        key = hashlib.blake2b(np.ascontiguousarray(images).data, digest_size=16).digest()
        with self._lock:
            known = self._known.get(key)
        if known is None:
            found = self._engine.embed(images)
            with self._lock:
                self._known[key] = found, time.monotonic() - began_s
                self._fresh = True
            return found
        with self._lock:
            self.owed_s += known[1] - (time.monotonic() - began_s)
        return known[0].copy()

    def settle(self) -> float:
        """Return `owed_s`, and forget it."""
        with self._lock:
            owed_s, self.owed_s = self.owed_s, 0.0
        return owed_s

    def close(self) -> None:
        """Write what is new to the file; the engine stays open."""
        if not self._fresh:
            return
        found = [item[0] for item in self._known.values()]
        with atomic_file(self._path, overwrite=True) as path, path.open("wb") as file:
            np.savez(
                file,
                keys=np.frombuffer(b"".join(self._known), np.uint8).reshape(-1, 16),
                counts=np.array([len(rows) for rows in found]),
                embeddings=np.concatenate(found),
                seconds=np.array([item[1] for item in self._known.values()]),
            )
        self._fresh = False

    def _read(self) -> None:
        with np.load(self._path, allow_pickle=False) as held:
            ends = np.cumsum(held["counts"])[:-1]
            parts = np.split(held["embeddings"], ends)
            keys = [row.tobytes() for row in held["keys"]]
            self._known = dict(
                zip(keys, zip(parts, held["seconds"].tolist(), strict=True), strict=True)
            )
