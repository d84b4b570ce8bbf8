from s4g.runtime.mavlink_hold import Hold

Step = tuple[bool, float | None, int]


def held(hold: Hold, *steps: Step) -> list[bool]:
    return [hold.keeps(*step) for step in steps]


def test_the_first_place_is_not_held_back() -> None:
    assert held(Hold(10), (False, 0, 3), (True, 1, 3), (True, 2, 3)) == [False] * 3


def test_another_place_is_held_back_for_its_time() -> None:
    steps = [(True, 0, 0), (True, 1, 1), (True, 10.9, 1), (True, 11, 1), (True, 12, 1)]
    assert held(Hold(10), *steps) == [False, True, True, False, False]


def test_a_gap_begins_the_time_anew() -> None:
    steps = [(True, 0, 0), (True, 1, 1), (False, 8, 1), (True, 11, 1), (True, 18, 1)]
    assert held(Hold(10), *steps) == [False, True, True, True, False]


def test_a_third_place_begins_the_time_anew() -> None:
    steps = [(True, 0, 0), (True, 1, 1), (True, 8, 2), (True, 11, 2), (True, 18, 2)]
    assert held(Hold(10), *steps) == [False, True, True, True, False]


def test_a_gap_without_another_place_holds_nothing_back() -> None:
    assert held(Hold(10), (True, 0, 0), (False, 1, 0), (True, 2, 0)) == [False] * 3


def test_a_clock_that_goes_back_begins_the_time_anew() -> None:
    steps = [(True, 100, 0), (True, 101, 1), (True, 50, 1), (True, 59, 1), (True, 60, 1)]
    assert held(Hold(10), *steps) == [False, True, True, True, False]


def test_without_a_time_to_hold_everything_goes_out() -> None:
    assert held(Hold(0), (True, 0, 0), (True, 1, 1), (True, 2, 2)) == [False] * 3
