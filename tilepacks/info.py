"""What a pack, or a plan for one, tells a person or a program."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..core.spec import EncoderSpec
from .overview import overview_record
from .pack_set import PackSet
from .plan import Plan
from .reader import Pack
from .search import least_linked
from .signature import key_id
from .words import counted, size_of

# Cell and detail, and a sample with its links, as measured on imagery (docs/packs.md); WebP at
# quality 80 at most.
_TILE_BYTES, _SAMPLE_BYTES, _OVERVIEW_BYTES_PER_PX = 2, 3, 0.25
_ORDINALS = {step: f"{step}th" for step in range(4, 17)} | {2: "second", 3: "third"}
_IMAGERY_TILE_BYTES = 10_000  # WebP of 256 px at quality 75, as measured on imagery
# What most encoders turn out to need; only the build can tell.
_USUAL_DIMS = 128


def pack_info(pack: Pack) -> dict[str, Any]:
    """Return what a pack holds as JSON values; sizes in bytes, lengths in metres."""
    manifest, spec, seal = pack.manifest, pack.spec, pack.container.seal
    levels = []
    for number, record in enumerate(manifest.levels):
        own = [v for k, v in pack.section_bytes.items() if k.startswith(f"level{number}.")]
        levels.append(
            {
                "footprint_m": record.lattice.footprint_m,
                "stride_m": record.lattice.stride_m,
                "gsd_m": record.lattice.gsd_m,
                "tiles": record.count,
                "vectors": record.vectors,
                "search": record.search.method,
                "step": record.search.step,
                "ef": record.search.ef,
                "recall_at_1": record.search.recall_at_1,
                "recall_at_10": record.search.recall_at_10,
                "found": record.found,
                "bytes": sum(own),
            }
        )
    bounds = pack.bounds
    return {
        "file": str(pack.path),
        "bytes": pack.path.stat().st_size,
        "bounds": [bounds.west, bounds.south, bounds.east, bounds.north],
        "frame": {"lat_deg": pack.frame.lat_deg, "lon_deg": pack.frame.lon_deg},
        "levels": levels,
        "overview_bytes": pack.section_bytes.get("overview", 0),
        "imagery": None
        if manifest.imagery is None
        else {**asdict(manifest.imagery), "bytes": pack.section_bytes["imagery"]},
        "layers": [asdict(layer) for layer in manifest.layers],
        "headings": len(manifest.variants) // len(manifest.layers),
        "attribution": pack.attribution,
        "dims": manifest.projection.dims,
        "probes_found_by_dims": manifest.projection.shares,
        "signed_by": None if seal is None else key_id(seal.public_key),
        "encoder": _encoder(spec),
        "tool": manifest.tool,
    }


def pack_text(info: dict[str, Any]) -> str:
    """Return `pack_info` as lines for a person."""
    encoder = info["encoder"]
    lines = [
        f"{info['file']}: {size_of(info['bytes'])}, built by {info['tool']}",
        f"region      {','.join(f'{v:.7g}' for v in info['bounds'])} (W,S,E,N)",
        *(
            f"imagery     {v['name']}, {v['gsd_m']:.3g} m/px {v['date']}".rstrip()
            for v in info["layers"]
        ),
        f"attribution {info['attribution'] or 'none given'}",
        f"encoder     {encoder['backbone']} {encoder['precision']}, {encoder['input_px']} px, "
        f"{encoder['embedding_dim']}-d, model {encoder['model_id'][:12]}",
        f"vectors     {info['dims']}-d, 8 bit"
        + (f", at {info['headings']} headings" if info["headings"] > 1 else ""),
        f"signed      {'by key ' + info['signed_by'] if info['signed_by'] else 'no'}",
        f"overview    {size_of(info['overview_bytes']) if info['overview_bytes'] else 'none'}",
    ]
    if (carried := info["imagery"]) is not None:
        lines.append(
            f"carries     imagery of zooms {carried['min_zoom']} to {carried['max_zoom']}, "
            f"{counted(carried['tiles'], 'tile')}, {size_of(carried['bytes'])}"
        )
    for level in info["levels"]:
        how = "exact scan"
        if level["search"] != "exact":
            way = "scan" if level["search"] == "sample" else f"graph ef {level['ef']}"
            if level["step"] > 1:
                way += f" of every {_ORDINALS[level['step']]} row and column"
            how = f"{way}, "
            how += f"recall@1 {level['recall_at_1']:.3f}"
        if level["found"] is None:
            how += ", share of trial views found not measured"
        else:
            how += f", {level['found']:.1%} of trial views found"
        shared = level["tiles"] - level["vectors"]
        lines.append(
            f"level {level['footprint_m']:>6g} m  {counted(level['tiles'], 'tile')} every "
            f"{level['stride_m']:g} m at {level['gsd_m']:.3g} m/px, {size_of(level['bytes'])}, "
            + how
            + (f", {shared} look like another" if shared else "")
        )
    return "\n".join(lines)


def set_info(packs: PackSet) -> dict[str, Any]:
    """Return what a set of packs holds as JSON values; lengths in metres, sizes in bytes.

    The size of a pack that is missing is None.
    """
    bounds, seal, spec = packs.bounds, packs.container.seal, packs.spec
    files = [packs.path / pack.file for pack in packs.packs]
    # Not those of the index: a pack that was signed since is a little larger.
    sizes = [file.stat().st_size if file.exists() else None for file in files]
    return {
        "file": str(packs.path),
        "bytes": sum(size for size in sizes if size is not None),
        "bounds": [bounds.west, bounds.south, bounds.east, bounds.north],
        "frame": {"lat_deg": packs.frame.lat_deg, "lon_deg": packs.frame.lon_deg},
        "levels": [asdict(level) for level in packs.levels],
        "tiles": packs.tiles,
        "signed_by": None if seal is None else key_id(seal.public_key),
        "encoder": _encoder(spec),
        "tool": packs.tool,
        "packs": [
            {
                "file": pack.file,
                "bounds": [getattr(pack.bounds, s) for s in ("west", "south", "east", "north")],
                "tiles": pack.tiles,
                "bytes": size,
            }
            for pack, size in zip(packs.packs, sizes, strict=True)
        ],
    }


def set_text(info: dict[str, Any]) -> str:
    """Return `set_info` as lines for a person."""
    encoder = info["encoder"]
    lines = [
        f"{info['file']}: {counted(len(info['packs']), 'pack')}, {size_of(info['bytes'])}, built "
        f"by {info['tool']}",
        f"region      {','.join(f'{v:.7g}' for v in info['bounds'])} (W,S,E,N)",
        f"encoder     {encoder['backbone']} {encoder['precision']}, {encoder['input_px']} px, "
        f"{encoder['embedding_dim']}-d, model {encoder['model_id'][:12]}",
        f"signed      {'by key ' + info['signed_by'] if info['signed_by'] else 'no'}",
    ]
    lines += [
        f"level {level['footprint_m']:>6g} m  {counted(level['tiles'], 'tile')} every "
        f"{level['stride_m']:g} m"
        for level in info["levels"]
    ]
    lines += [
        f"{pack['file']}  {','.join(f'{v:.6f}' for v in pack['bounds'])}  "
        f"{counted(pack['tiles'], 'tile')}, "
        + ("its file is missing" if pack["bytes"] is None else size_of(pack["bytes"]))
        for pack in info["packs"]
    ]
    return "\n".join(lines)


def _encoder(spec: EncoderSpec) -> dict[str, Any]:
    return {
        "model_id": spec.model_id,
        "backbone": spec.backbone,
        "embedding_dim": spec.embedding_dim,
        "input_px": spec.input_px,
        "precision": spec.precision,
    }


def plan_info(
    plan: Plan,
    spec: EncoderSpec,
    source_gsd_m: float,
    overview: bool,
    dims: int | None,
    variants: int,
    tiles_per_s: float | None = None,
    covered_km2: float | None = None,
    imagery_tiles: int = 0,
    packs: int | None = None,
) -> dict[str, Any]:
    """Return what a plan would build as JSON values: tiles at most, bytes and minutes about.

    Args:
        plan: region and levels.
        spec: the encoder's contract.
        source_gsd_m: native metres per pixel of the imagery.
        overview: whether a picture of the region is added.
        dims: length of the vectors, if it is chosen.
        variants: vectors of each place.
        tiles_per_s: what the encoder does, if it was tried.
        covered_km2: how much of the region has imagery, if somebody looked.
        imagery_tiles: of the pyramid of imagery that is added.
        packs: how many it would be, where it is a set.
    """
    levels = []
    length = min(spec.embedding_dim, _USUAL_DIMS if dims is None else dims)
    for lattice in plan.lattices:
        links = _SAMPLE_BYTES if lattice.count >= least_linked(length) else 0
        levels.append(
            {
                "footprint_m": lattice.footprint_m,
                "stride_m": lattice.stride_m,
                "gsd_m": lattice.gsd_m,
                "tiles": variants * lattice.count,
                "bytes": variants * lattice.count * (length + _TILE_BYTES + links),
            }
        )
    picture = 0
    if overview:
        record = overview_record(plan.extent_m, source_gsd_m)
        picture = int(record.width_px * record.height_px * _OVERVIEW_BYTES_PER_PX)
    projection = 0
    if length != spec.embedding_dim and length not in spec.nested_dims:
        projection = 4 * spec.embedding_dim * length * (packs or 1)
    west, south, east, north = plan.extent_m
    return {
        "bounds": [plan.region.west, plan.region.south, plan.region.east, plan.region.north],
        "width_m": east - west,
        "height_m": north - south,
        "levels": levels,
        "overview_bytes": picture,
        "projection_bytes": projection,
        "imagery_bytes": imagery_tiles * _IMAGERY_TILE_BYTES,
        "bytes": sum(level["bytes"] for level in levels)
        + picture
        + projection
        + imagery_tiles * _IMAGERY_TILE_BYTES,
        "tiles_per_s": None if tiles_per_s is None else round(tiles_per_s, 1),
        "minutes": None
        if tiles_per_s is None
        else round(sum(level["tiles"] for level in levels) / tiles_per_s / 60, 1),
        "packs": packs,
        "covered_km2": None if covered_km2 is None else round(covered_km2, 3),
    }


def plan_text(info: dict[str, Any]) -> str:
    """Return `plan_info` as lines for a person."""
    first = f"region {info['width_m']:.0f} x {info['height_m']:.0f} m"
    if info["covered_km2"] is not None:
        share = info["covered_km2"] / (info["width_m"] * info["height_m"] / 1e6)
        first += f", {info['covered_km2']:.3g} km2 of it with imagery ({share:.0%})"
    if info["packs"] is not None:
        first += f", in {counted(info['packs'], 'pack')}"
    lines = [first]
    lines += [
        f"level {level['footprint_m']:>6g} m  at most {counted(level['tiles'], 'tile')} every "
        f"{level['stride_m']:g} m at {level['gsd_m']:.3g} m/px, about {size_of(level['bytes'])}"
        for level in info["levels"]
    ]
    if info["overview_bytes"]:
        lines.append(f"overview     about {size_of(info['overview_bytes'])}")
    if info["imagery_bytes"]:
        lines.append(f"imagery      about {size_of(info['imagery_bytes'])}")
    if info["minutes"] is not None:
        lines.append(
            f"time         about {max(info['minutes'], 0.1):.1f} min, by the encoder's "
            f"{info['tiles_per_s']:.0f} tiles a second on this machine"
        )
    return "\n".join([*lines, f"total        about {size_of(info['bytes'])}; nothing was written"])
