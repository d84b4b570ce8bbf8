"""URL templates of tile servers: checked, filled in, and shown without keys."""

from __future__ import annotations

import difflib
import re
from urllib.parse import urlsplit

from .errors import InputError

SUBDOMAINS = "abc"

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FIELDS = ("x", "y", "-y", "z", "q", "s", "TileMatrix", "TileRow", "TileCol")
_LONGEST_PLAIN_PART = 24  # longer parts of a path are keys, if they look so
_KEY = re.compile(r"(?=.*[0-9A-Z])[\w.~%=+-]+$", re.ASCII)
_HIDDEN = "***"

# Hosts whose terms forbid bulk download without an agreement; each stands for its subdomains too.
PUBLIC_HOSTS = (
    "tile.openstreetmap.org",
    "google.com",
    "googleapis.com",
    "bing.com",
    "virtualearth.net",
    "arcgisonline.com",
    "api.mapbox.com",
    "tiles.mapbox.com",
)


def check_template(template: str) -> None:
    """Check that a template names a fixed http(s) host and every tile by one URL.

    Raises:
        InputError: it does not; the message shows no key.
    """
    name = masked_template(template)
    try:
        parts = urlsplit(template)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise InputError(f"{name}: is no template like https://host/{{z}}/{{x}}/{{y}}.png")
    fields = _PLACEHOLDER.findall(template)
    for field in fields:
        if field not in _FIELDS:
            near = difflib.get_close_matches(field, _FIELDS, 1, 0.0)[0]
            known = " ".join(f"{{{f}}}" for f in _FIELDS)
            raise InputError(
                f"{name}: {{{field}}} is no placeholder, did you mean {{{near}}}? Known: {known}"
            )
    if set(_PLACEHOLDER.findall(parts.netloc)) - {"s"} or re.search(r"[\s\\]", template):
        raise InputError(f"{name}: the host must be fixed, but for {{s}}, and without spaces")
    if "q" not in fields and not (
        {"z", "TileMatrix"} & set(fields)
        and {"x", "TileCol"} & set(fields)
        and {"y", "-y", "TileRow"} & set(fields)
    ):
        raise InputError(
            f"{name}: must hold {{z}}, {{x}} and {{y}} (or {{-y}}), or {{q}}, or {{TileMatrix}}, "
            "{TileCol} and {TileRow}"
        )


def fill_template(template: str, zoom: int, x: int, y: int) -> str:
    """Return the URL of a tile; `y` counts from the north."""
    values = {
        "z": zoom,
        "TileMatrix": zoom,
        "x": x,
        "TileCol": x,
        "y": y,
        "TileRow": y,
        "-y": (1 << zoom) - 1 - y,
        "q": quadkey(zoom, x, y),
        "s": SUBDOMAINS[(x + y) % len(SUBDOMAINS)],
    }
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), template)


def quadkey(zoom: int, x: int, y: int) -> str:
    """Return a tile's number in base 4, one digit a zoom (Bing Maps tile system)."""
    bits = range(zoom - 1, -1, -1)
    return "".join(str((x >> bit & 1) + 2 * (y >> bit & 1)) for bit in bits)


def masked_template(template: str) -> str:
    """Return a template or URL without user, values of its query, and what looks like a key."""
    address, _, _ = template.partition("#")
    address, asks, query = address.partition("?")
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        scheme, rest = "", address
    host, *path = rest.split("/")
    host = host.rpartition("@")[2]
    shown = "/".join([host, *(_HIDDEN if _is_key(part) else part for part in path)])
    return scheme + slashes + shown + asks + "&".join(map(_masked_pair, query.split("&")))


def _is_key(part: str) -> bool:
    plain = _PLACEHOLDER.sub("", part)
    return len(plain) > _LONGEST_PLAIN_PART and _KEY.match(plain) is not None


def _masked_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return name + equals + _without_text(value) if equals else _without_text(name)


def _without_text(value: str) -> str:
    """Return the placeholders of a query value; whatever else it says is hidden."""
    pieces = _PLACEHOLDER.split(value)
    # Text and names of placeholders alternate, and text comes first.
    return "".join(
        f"{{{piece}}}" if i % 2 else _HIDDEN * bool(piece) for i, piece in enumerate(pieces)
    )


def public_host(template: str) -> str | None:
    """Return the host, where its terms are known to forbid bulk download."""
    host = (urlsplit(template).hostname or "").rstrip(".")
    for known in PUBLIC_HOSTS:
        if host == known or host.endswith("." + known):
            return known
    return None
