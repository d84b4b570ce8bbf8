"""One family of errors, so that a command can tell a user's mistake from a failure.

Every message names the file or option, the value seen and the remedy, on one line.
"""

from __future__ import annotations


class S4GError(Exception):
    """Something failed that the user did not get wrong (disk full, device lost). Exit code 1."""

    exit_code = 1


class InputError(S4GError):
    """The user's input or usage is wrong: a file, an option, a combination. Exit code 2."""

    exit_code = 2


class EncoderMismatchError(InputError):
    """Two artefacts made by different encoders were put together."""


class IntegrityError(InputError):
    """A file is damaged, truncated, altered or not of the format its name says."""
