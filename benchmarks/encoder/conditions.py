"""All conditions, and the queries that are foreign to a region."""

from __future__ import annotations

import dataclasses

import date_conditions
import fault_conditions
import photo_conditions
import world_conditions
from condition import Group, Setting
from evaluate import Foreign

GROUPS: tuple[Group, ...] = (
    *photo_conditions.GROUPS,
    *date_conditions.GROUPS,
    *world_conditions.GROUPS,
    *fault_conditions.GROUPS,
)
NAMES = tuple(name for group in GROUPS for name in group.names)
# Conditions whose queries are foreign to all other regions: every source of ground once.
_POOL = ("other year, 640 m", "other season", "no fault")
_POOL_QUERIES = 160


def foreign_pool(setting: Setting) -> list[Foreign]:
    """Return queries of each source of ground that is at hand."""
    few = dataclasses.replace(setting, queries=min(setting.queries, _POOL_QUERIES))
    pool = {}
    for group in GROUPS:
        if not all((setting.data / folder).is_dir() for folder in group.folders):
            continue
        for condition in group.make(few, _POOL):
            for region in condition.regions:
                source = region.gallery.source
                pool[source] = Foreign(source, region.queries, region.cluster, region.shots)
    return list(pool.values())
