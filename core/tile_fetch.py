"""One tile by HTTP: paced, retried with back-off, bounded, and with errors that hide keys."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from .errors import S4GError
from .tile_image import MAX_TILE_BYTES, begins, is_picture, is_whole

_RETRIED = (429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_HOLES = (204, 404)
_CONNECT_S = 10.0
_READ_S = 30.0  # without a byte
_WHOLE_S = 120.0  # for all of a tile, however slowly it drips
_BACKOFF_S = 0.5  # doubles with each try
_LONGEST_WAIT_S = 120.0  # a server that asks for more is better left alone for now
_MAX_REDIRECTS = 5


def _requests() -> Any:
    try:
        import requests
    except ImportError:
        raise S4GError("reading tiles from a URL needs requests: pip install 's4g[pack]'") from None
    return requests


class Pace:
    """At most so many requests a second, by all threads together."""

    def __init__(self, rate_per_s: float) -> None:
        """Start without debt."""
        self._gap_s = 1 / rate_per_s
        self._next_s = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is this thread's turn."""
        with self._lock:
            now_s = time.monotonic()
            turn_s = max(now_s, self._next_s)
            self._next_s = turn_s + self._gap_s
        if turn_s > now_s:
            time.sleep(turn_s - now_s)


class _Passing(Exception):
    """A failure that may pass: its text for the user, and the answer that may say when."""

    def __init__(self, reason: str, response: Any = None) -> None:
        super().__init__(reason)
        self.response = response


@dataclass(frozen=True)
class _Answer:
    """What a server said, its body read: None for a hole."""

    data: bytes | None


class TileFetcher:
    """Fetches tiles from one server; several threads may use it."""

    def __init__(self, user_agent: str, rate_per_s: float, retries: int) -> None:
        """Open no connection yet."""
        self._requests = _requests()
        self._user_agent = user_agent
        self._rate_per_s = rate_per_s
        self._retries = retries
        self._pace = Pace(rate_per_s)
        self._local = threading.local()
        self._sessions: list[Any] = []
        self._lock = threading.Lock()

    def fetch(self, url: str, origin: str) -> bytes | None:
        """Return a PNG, JPEG or WebP that is whole, or None where the server has no such tile.

        Args:
            url: the address, which errors never show.
            origin: the name for errors.

        Raises:
            S4GError: the server refuses, stays busy, is not reached, or sends no picture.
        """
        from urllib3.exceptions import InvalidHeader, MaxRetryError
        from urllib3.util import Retry

        policy = Retry(total=self._retries, backoff_factor=_BACKOFF_S, backoff_jitter=_BACKOFF_S)
        while True:
            try:
                return self._followed(url, origin)
            except _Passing as failure:
                reason, raw = str(failure), getattr(failure.response, "raw", None)
                status = getattr(failure.response, "status_code", 0)
            try:
                asked_s = policy.get_retry_after(raw) if raw is not None else None
            except InvalidHeader:
                asked_s, raw = None, None
            if asked_s is not None and asked_s > _LONGEST_WAIT_S:
                raise S4GError(
                    f"{origin}: the server asks to wait {asked_s:.0f} s ({reason}); run the same "
                    "command again after that, what was fetched is kept"
                )
            try:
                policy = policy.increment("GET", origin, error=OSError(reason))
            except MaxRetryError:
                raise S4GError(f"{origin}: {self._given_up(reason, status)}") from None
            policy.sleep(raw)

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            while self._sessions:
                self._sessions.pop().close()

    def _given_up(self, reason: str, status: int) -> str:
        tries = self._retries + 1
        if status == 429:
            return (
                f"the server asks for fewer requests (429, {tries} tries); lower --rate (now "
                f"{self._rate_per_s:g}) and run the same command again, what was fetched is kept"
            )
        return (
            f"{reason}, {tries} tries; try again later with the same command, "
            "what was fetched is kept"
        )

    def _session(self) -> Any:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._requests.Session()
            # Redirects are followed here: requests would read their bodies without a bound.
            session.get_redirect_target = lambda response: None
            session.headers["User-Agent"] = self._user_agent
            # Pictures are compressed already, and what inflates has no bound.
            session.headers["Accept-Encoding"] = "identity"
            session.headers["Accept"] = "image/webp,image/png,image/jpeg,*/*;q=0.5"
            with self._lock:
                self._sessions.append(session)
            self._local.session = session
        return session

    def _followed(self, url: str, origin: str) -> bytes | None:
        """Return what the server has for an address, or for the one that it sends us to."""
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._asked(url, origin)
            if isinstance(answer, _Answer):
                return answer.data
            allowed = ("https",) if urlsplit(url).scheme == "https" else ("http", "https")
            try:
                target = urljoin(url, answer)
                scheme = urlsplit(target).scheme
            except ValueError:
                raise S4GError(f"{origin}: the server redirects to what is no URL") from None
            if scheme not in allowed:
                raise S4GError(
                    f"{origin}: the server redirects to {scheme}:, "
                    f"which is not followed from {urlsplit(url).scheme}:"
                )
            url = target
        raise S4GError(f"{origin}: more than {_MAX_REDIRECTS} redirects; check the template")

    def _asked(self, url: str, origin: str) -> _Answer | str:
        """Return the answer to one request, or where it redirects to."""
        errors = self._requests.exceptions
        self._pace.wait()
        try:
            with self._session().get(
                url, stream=True, timeout=(_CONNECT_S, _READ_S), allow_redirects=False
            ) as response:
                status = response.status_code
                if status in _REDIRECTS and "Location" in response.headers:
                    return str(response.headers["Location"])
                if status in _RETRIED:
                    raise _Passing(f"the server failed ({status})", response)
                if status in _HOLES:
                    return _Answer(None)
                return _Answer(_picture(response, origin))
        except errors.Timeout:
            raise _Passing("the server did not answer in time") from None
        except errors.SSLError:
            raise S4GError(
                f"{origin}: the server's TLS certificate is not trusted; check the host"
            ) from None
        except (errors.ConnectionError, errors.ChunkedEncodingError):
            raise _Passing("the connection failed") from None
        except (errors.RequestException, ValueError):  # a host that cannot be
            raise S4GError(f"{origin}: the URL cannot be asked; check the template") from None


def _picture(response: Any, origin: str) -> bytes:
    status = response.status_code
    if status in (401, 403):
        raise S4GError(
            f"{origin}: refused by the server ({status}): a key is missing or wrong, the user "
            "agent is unknown (--contact), or you lack the permission"
        )
    if status != 200:
        raise S4GError(f"{origin}: the server answers {status}; check the template and the zoom")
    data = _body(response, origin)
    if not is_picture(data):
        kind = response.headers.get("Content-Type", "no content type").split(";")[0][:60]
        raise S4GError(
            f"{origin}: the server sends {kind!r} instead of a PNG, JPEG or WebP (begins "
            f"{begins(data)}); check the template, the key and the zoom"
        )
    if not is_whole(data):
        raise _Passing(f"the picture ends early ({len(data)} bytes)")
    return data


def _body(response: Any, origin: str) -> bytes:
    """Return the body as sent, read piece by piece as it comes."""
    from urllib3.exceptions import HTTPError

    data = bytearray()
    end_s = time.monotonic() + _WHOLE_S
    try:
        while piece := response.raw.read1(MAX_TILE_BYTES + 1 - len(data), decode_content=False):
            data += piece
            if len(data) > MAX_TILE_BYTES:
                raise S4GError(
                    f"{origin}: the server sends more than {MAX_TILE_BYTES >> 20} MB, "
                    "too much for a tile; check the template"
                )
            if time.monotonic() > end_s:
                raise _Passing("the server did not answer in time")
    except (HTTPError, OSError):
        raise _Passing("the connection broke off") from None
    return bytes(data)
