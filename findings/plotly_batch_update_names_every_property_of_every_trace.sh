#!/usr/bin/env bash
# plotly 7.1.0 with ipywidgets 8.1.9 and anywidget 0.11.0.
# Inside FigureWidget.batch_update, traces that change different properties share one message in which every changed
# property has one entry a trace. A trace that did not touch the property gets a placeholder; on its way to the page it
# becomes the text "_undefined_", so what was set earlier (a name, a colour) is not repeated there.
# Seen: y of the first trace and name of the second changed; the message holds two names and two ys, one of each the text.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check plotly==7.1.0 ipywidgets==8.1.9 anywidget==0.11.0
"$place/venv/bin/python" - <<'PY'
import plotly.graph_objects as go

figure = go.FigureWidget()
figure.add_scatter(name="one", y=[1, 2])
figure.add_scatter(name="two", y=[3, 4])
written = figure.traits()["_py2js_update"].metadata["to_json"]
sent = []
figure.observe(lambda change: sent.append(change["new"]), names="_py2js_update")
with figure.batch_update():
    figure.data[0].y = [5, 6]
    figure.data[1].name = "another"
message = next(written(each, figure) for each in sent if each)["style_data"]
print("properties in the message:", message)
assert message == {"name": ["_undefined_", "another"], "y": [[5, 6], "_undefined_"]}
PY
