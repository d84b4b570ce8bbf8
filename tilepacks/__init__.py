"""Imagery, region and engine in, one pack file out; and the pack reader."""
