#!/usr/bin/env bash
# plotly 7.1.0 with ipywidgets 8.1.9 and anywidget 0.11.0.
# A FigureWidget that stands inside an ipywidgets box has an empty saved state: the traits from which a page builds
# the figure when it is loaded again are filled only when the figure itself is the output of a cell. Shown by its box,
# it looks right until the page is reloaded (kernel alive) or the notebook's widget state is saved: then no trace is left.
# Seen: state of the figure in a box: no trace; of the same figure shown by itself: one trace of three points.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check plotly==7.1.0 ipywidgets==8.1.9 anywidget==0.11.0
"$place/venv/bin/python" - <<'PY'
import ipywidgets
import plotly.graph_objects as go


def saved(figure):
    return [len(trace.get("y", ())) for trace in figure.get_state(["_widget_data"])["_widget_data"]]


figure = go.FigureWidget()
figure.add_scatter(y=[1, 2, 3])
box = ipywidgets.VBox([figure])
box._repr_mimebundle_()
in_box = saved(figure)
figure._repr_mimebundle_()
alone = saved(figure)
print("traces in the saved state, shown by its box:", in_box, "- shown by itself:", alone)
assert len(figure.data) == 1
assert sum(in_box) == 0
assert alone == [3]
PY
