"""A STAC Item, or an ItemCollection, as a source: its visual image, its credit and its date."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from .errors import InputError, S4GError
from .raster_files import is_url, without_query
from .source_mosaic import MosaicGround, join_distinct, open_mosaic
from .source_raster import RasterGround

_MAX_JSON_BYTES = 64 << 20
_IMAGES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
_TIMEOUT_S = (10, 30)  # to connect, to answer
_TRIES = 4
_BACKOFF_S = 1.0


def is_stac(source: str) -> bool:
    """Return whether a source names a STAC file: `….json`, `….geojson`, with `#asset` or not."""
    path = urlsplit(source).path if is_url(source) else source.partition("#")[0]
    return path.lower().endswith((".json", ".geojson"))


def open_stac(
    source: str, stretch: tuple[float, float] | None = None
) -> RasterGround | MosaicGround:
    """Open the images of a STAC Item or ItemCollection; nothing but these is fetched.

    Taken is the asset `visual`, else the only image that is data, else the one named after `#`.
    Where images of a collection overlap, the first in the file wins.

    Args:
        source: path or address of the JSON, with `#asset` to choose.
        stretch: see `RasterGround`.

    Raises:
        InputError: it is no such JSON, or it does not say which image is meant.
        IntegrityError: an image is damaged.
        S4GError: a server does not answer.
    """
    href, _, asset = source.partition("#")
    name = without_query(href) if is_url(href) else href
    scenes, notes = _scenes(_load(href, name), name)
    images = [_image(scene.item, asset, href, f"{name}, item {scene.item.id}") for scene in scenes]
    ground: RasterGround | MosaicGround
    if len(images) == 1:
        ground = RasterGround(images[0], stretch)
    else:
        ground = open_mosaic(images, name, stretch, as_given=True)
    ground.notes += notes
    ground.attribution = join_distinct(scene.credit for scene in scenes) or ground.attribution
    if dates := sorted(scene.taken for scene in scenes if scene.taken is not None):
        ground.datetime = dates[0]
        days = dict.fromkeys(date.date().isoformat() for date in (dates[0], dates[-1]))
        ground.date = "/".join(days)
    return ground


@dataclass(frozen=True)
class _Scene:
    item: Any  # pystac.Item
    credit: str
    taken: datetime | None


def _load(href: str, name: str) -> Any:
    data = _fetch(href, name) if is_url(href) else _read(Path(href))
    if len(data) > _MAX_JSON_BYTES:
        raise InputError(f"{name}: is larger than {_MAX_JSON_BYTES >> 20} MiB; give fewer items")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{name}: not JSON; give a STAC Item or ItemCollection") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _fetch(url: str, name: str) -> bytes:
    try:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry
    except ImportError:
        raise S4GError("reading from the web needs requests: pip install 's4g[pack]'") from None
    again = Retry(
        _TRIES,
        backoff_factor=_BACKOFF_S,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
    )
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=again))
            with session.get(url, timeout=_TIMEOUT_S, stream=True) as answer:
                if answer.status_code != 200:
                    kind = S4GError if answer.status_code >= 500 else InputError
                    raise kind(
                        f"{name}: the server answered HTTP {answer.status_code}; check the address"
                    )
                parts, size = [], 0
                for part in answer.iter_content(1 << 16):
                    parts.append(part)
                    size += len(part)
                    if size > _MAX_JSON_BYTES:
                        break
                return b"".join(parts)
    except requests.RequestException as error:
        raise S4GError(
            f"{name}: cannot be reached ({type(error).__name__}); check the address and the network"
        ) from None


def _scenes(found: Any, name: str) -> tuple[list[_Scene], tuple[str, ...]]:
    """Return the items and what to tell about them."""
    kind = found.get("type") if isinstance(found, dict) else None
    if kind not in ("Feature", "FeatureCollection"):
        raise InputError(
            f"{name}: is {kind if isinstance(kind, str) else 'no STAC'}, expected a STAC Item or "
            "ItemCollection"
        )
    features = [found] if kind == "Feature" else found.get("features")
    if not isinstance(features, list) or not features:
        raise InputError(f"{name}: holds no items")
    scenes = [_scene(feature, name) for feature in features]
    links = found.get("links")
    more = isinstance(links, list) and any(
        isinstance(link, dict) and link.get("rel") == "next" for link in links
    )
    if kind == "FeatureCollection" and more:
        return scenes, (f"{name}: is the first page of a longer list; the rest is not used",)
    return scenes, ()


def _scene(feature: Any, name: str) -> _Scene:
    try:
        import pystac
    except ImportError:
        raise S4GError("reading STAC needs pystac: pip install 's4g[pack]'") from None
    try:
        item = pystac.Item.from_dict(feature, migrate=False)
        if not isinstance(item.id, str):
            raise TypeError("id")
        for key, asset in item.assets.items():
            # pystac takes these as they come.
            if not isinstance(asset.href, str) or not isinstance(asset.media_type or "", str):
                raise TypeError(f"asset {key}")
            asset.roles = [str(role) for role in asset.roles or []]
        taken = item.datetime or item.common_metadata.start_datetime
        # Times without a zone are UTC by the specification, and cannot be compared with others.
        taken = taken if taken is None or taken.tzinfo else taken.replace(tzinfo=timezone.utc)
        return _Scene(item, _credit(item), taken)
    # What pystac raises for JSON that is no item depends on what is wrong in it.
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:80]
        raise InputError(f"{name}: not a valid STAC Item ({text})") from None


def _image(item: Any, wanted: str, origin: str, name: str) -> str:
    """Return the path or address of an item's image."""
    assets = item.assets
    images = [
        key
        for key, asset in assets.items()
        if (asset.media_type or "").partition(";")[0].strip().lower() in _IMAGES
        and (not asset.roles or "data" in asset.roles)
    ]
    if wanted:
        key = wanted
        if key not in assets:
            raise InputError(f"{name}: has no asset {key}; it has {', '.join(assets) or 'none'}")
    elif "visual" in assets:
        key = "visual"
    elif len(images) == 1:
        key = images[0]
    elif images:
        raise InputError(
            f"{name}: has several images ({', '.join(images)}); choose one: {_plain(origin)}"
            f"#{images[0]}"
        )
    else:
        raise InputError(f"{name}: has no image; its assets are {', '.join(assets) or 'none'}")
    return _resolve(str(assets[key].href), origin, f"{name}, asset {key}")


def _plain(origin: str) -> str:
    return without_query(origin) if is_url(origin) else origin


def _resolve(href: str, origin: str, name: str) -> str:
    """Return where an image lies; what came over the web leads nowhere but to the web."""
    if is_url(href):
        return href
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", href) or href.startswith("/vsi"):
        raise InputError(
            f"{name}: {_plain(href)[:80]} cannot be opened; expected a path or an http(s) address"
        )
    if is_url(origin):
        return urljoin(origin, href)
    path = Path(origin).parent / href
    if not path.exists():
        raise InputError(f"{name}: no such file: {path}")
    return str(path)


def _credit(item: Any) -> str:
    """Return the providers of an item and its licence."""
    providers = item.common_metadata.providers or []
    names = ", ".join(dict.fromkeys(str(provider.name) for provider in providers))
    licence = str(item.properties.get("license") or "")
    return " ".join(f"{names} ({licence})".split()) if names and licence else names or licence
