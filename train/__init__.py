"""Imagery in, checkpoint out."""
