"""What chapter 06 asks of its reader."""

from __future__ import annotations

from lib.lesson import Option, Question

__all__ = ["PREDICTIONS"]

PREDICTIONS = {
    "moving": Question(
        "Four trained networks look at one picture while it moves to the right, by fractions of a pixel. How many of "
        "them are equally sure of their answer at every place?",
        (
            Option("All four: it is the same picture.", "It is for us. Networks see pixels, and those change."),
            Option(
                "One.",
                "Only the line of the alias-free network (AFC) is straight. Drag the first slider slowly: the "
                "baseline's answer depends on the place.",
                right=True,
            ),
            Option("None.", "One of them was built so that it cannot tell the places apart."),
        ),
    ),
}
