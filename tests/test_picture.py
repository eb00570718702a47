"""Still pictures show the same data as the live figures."""

import numpy as np
import pytest

from lib import picture
from lib.style import new_figure


def test_lines_bars_and_maps_carry_their_data() -> None:
    figure = new_figure(3, titles=("a", "b", "c"))
    figure.add_scatter(x=[1, 2, None, 3], y=[4, 5, None, 6], name="line", row=1, col=1)
    figure.add_bar(x=[0, 1], y=[2, 3], row=1, col=2)
    figure.add_heatmap(x=[0, 1], y=[0, 1], z=[[1, 2], [3, 4]], row=1, col=3)
    figure.update_xaxes(type="log", range=[0, 1], row=1, col=1, title="x<sub>1</sub>")
    still = picture.draw(figure)
    line_axis, bar_axis, map_axis = still.axes
    (line,) = line_axis.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[1, 4], [2, 5], [np.nan, np.nan], [3, 6]])
    assert line_axis.get_xscale() == "log"
    assert line_axis.get_xlim() == (1, 10)
    assert line_axis.get_xlabel() == r"x$_{\mathrm{1}}$"
    assert [bar.get_height() for bar in bar_axis.patches] == [2, 3]
    np.testing.assert_array_equal(map_axis.collections[0].get_array(), [[1, 2], [3, 4]])
    assert {text.get_text() for text in still.texts} == {"a", "b", "c"}


def test_hidden_traces_are_not_drawn_and_unknown_ones_are_refused() -> None:
    figure = new_figure()
    figure.add_scatter(x=[0], y=[0], visible=False)
    assert not picture.draw(figure).axes[0].get_lines()
    figure.add_pie(values=[1])
    with pytest.raises((ValueError, AttributeError)):
        picture.draw(figure)
