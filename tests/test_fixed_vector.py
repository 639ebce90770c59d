"""One vector for a whole sequence: what is compared differs in attention only."""

import pytest

import attention
import fixed_vector

CASES = {}   # its networks are attention.py's


def test_sides_differ_in_attention_only():
    """In each pair width and steps are the same; without attention: the last state."""
    sides = fixed_vector.sides(fixed_vector.Settings())
    for state in fixed_vector.STATES:
        (_, with_attention, *one), (_, without, *other) = (
            sides[f"{state}_additive"], sides[f"{state}_none"])
        assert one == other and (with_attention, without) == ("additive", "none")
    assert isinstance(attention.MECHANISMS["none"](8), attention.LastPlace)


@pytest.mark.parametrize("shares, steps", [
    ([[0.5, 0.9, 1.0], [0.95, 0.9, 0.9]], 15), ([[0.5, 0.9], [0.5, 0.8]], None)])
def test_steps_to(shares, steps):
    """The mean of the first epochs that reach it, in steps."""
    histories = [{"accuracy": values} for values in shares]
    assert fixed_vector.steps_to(0.9, histories, batches=10) == steps
