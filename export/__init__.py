"""Checkpoint in, engines and a parity report out."""
