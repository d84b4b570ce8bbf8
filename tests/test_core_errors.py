"""The family of errors."""

from __future__ import annotations

import pytest

from s4g.core.errors import EncoderMismatchError, InputError, IntegrityError, S4GError


def test_a_failure_exits_with_1() -> None:
    assert S4GError("disk full").exit_code == 1


@pytest.mark.parametrize("kind", [InputError, EncoderMismatchError, IntegrityError])
def test_a_mistake_of_the_user_exits_with_2_and_can_be_caught_as_one_family(
    kind: type[S4GError],
) -> None:
    with pytest.raises(S4GError, match="^what was wrong$") as caught:
        raise kind("what was wrong")
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, InputError)
