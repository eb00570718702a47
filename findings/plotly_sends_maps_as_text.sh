#!/usr/bin/env bash
# plotly 7.1.0 with ipywidgets 8.1.9 and anywidget 0.11.0, numpy 2.4.6.
# A FigureWidget sends a one-dimensional array as its bytes, but a two-dimensional one, such as a heat map, as a nested
# list, that is as JSON text: the type of its numbers makes no difference, and float32 needs more text than float64
# would need bytes.
# Seen for 100 x 100 float32 numbers: as a curve 40,000 bytes beside the message; as a map no bytes, over 150,000 letters.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check plotly==7.1.0 ipywidgets==8.1.9 anywidget==0.11.0 numpy==2.4.6
"$place/venv/bin/python" - <<'PY'
import json

import numpy as np
import plotly.graph_objects as go

numbers = np.random.default_rng(0).random((100, 100)).astype(np.float32)


def sent(trace, name, values):
    """Bytes beside the message, and letters in it, of a change of one property."""
    figure = go.FigureWidget([trace])
    figure._repr_mimebundle_()
    written = figure.traits()["_py2js_restyle"].metadata["to_json"]
    found = []
    figure.observe(lambda change: found.append(change["new"]), names="_py2js_restyle")
    setattr(figure.data[0], name, values)
    value = next(written(each, figure) for each in found if each)["restyle_data"][name]
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, dict):
        return value["buffer"].nbytes, 0
    return 0, len(json.dumps(value))


curve = sent(go.Scatter(), "y", numbers.ravel())
heat = sent(go.Heatmap(), "z", numbers)
print("curve (bytes, letters):", curve, "- map:", heat)
assert curve == (40_000, 0)
assert heat[0] == 0
assert heat[1] > 150_000
PY
