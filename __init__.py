"""s4g: a drone finds itself without GNSS, from training to the edge."""

__version__ = "0.1.0"
