"""What an explorer says there is to try comes true, and only there."""

import re
from typing import ClassVar

import pytest

from lib.explorer import Explorer, Panel, Slider, Try, all_explorers, axis, line

TRIES = [(explorer, each) for explorer in all_explorers().values() for each in explorer.tries]


@pytest.mark.parametrize(
    ("explorer", "each"), TRIES, ids=lambda case: getattr(case, "label", getattr(case, "name", ""))
)
def test_a_try_shows_what_it_says(explorer, each) -> None:
    live = explorer()
    live.try_out(each.label)
    assert not live.error
    assert each.holds(live.data), f"{explorer.__name__}, {each.label}: {live.parameters}"
    said = re.sub("<[^>]*>", "", live._said.value)
    assert len(said) > 20
    assert "{" not in said
    defaults = {name: control.default for name, control in live.declared.items()}
    assert live.parameters != defaults, "a press changes nothing"
    live.set(**defaults | dict(each.not_at))
    assert not each.holds(live.data), f"{explorer.__name__}, {each.label} also holds at {dict(each.not_at)}"
    assert live._said.value == ""


class Square(Explorer):
    """Something to try."""

    name = "square"
    title = "A square"
    caption = "It grows with the slider."
    declared: ClassVar = {"side": Slider("side", 0.0, 3.0, 0.1, 1.0), "more": Slider("more", 0.0, 1.0, 0.1, 0.0)}
    panels = (Panel("area", axis("x", (0, 3)), axis("y", (0, 9))),)
    traces = (line("area", "blue", x="side", y="area"),)
    tries = (
        Try("two", {"side": 2.0}, "Its area is {area:.0f}.", lambda data: data["area"] == 4, {"side": 1.0}),
        Try("too much", {"more": 1.0}, "Its area is {area:.0f}.", lambda _: False, {}),
    )

    def compute(self, side: float, more: float):
        if more == 1:
            raise ValueError("too much")
        return {"side": [side], "area": side**2 + more}


def test_a_try_sets_all_controls_and_its_words_go_with_the_next_change() -> None:
    live = Square(more=0.5)
    live.try_out("two")
    assert live.parameters == {"side": 2.0, "more": 0.0}
    assert "Its area is 4." in live._said.value
    live.controls["side"].value = 1.5
    assert live._said.value == ""
    with pytest.raises(ValueError, match="what must be one of two, too much; it is 'three'"):
        live.try_out("three")
    assert live.figures()[1]["label"] == "Try: two. Its area is 4."
    assert live.parameters["side"] == 1.5
    live.try_out("too much")  # the message stands in the figure's place, and nothing is said of older data
    assert "too much" in live.error
    assert live._said.value == ""
