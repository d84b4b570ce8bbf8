"""Camera, telemetry, pack and engine in, position fixes out."""
