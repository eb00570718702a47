#!/usr/bin/env bash
# pyproj 3.7.2 (PROJ 9.5).
# The table of PROJ's own units, as pyproj.database.get_units_map(auth_name="PROJ") gives it, says that a decimetre is
# 0.01 m. Whoever converts heights by this table makes decimetres ten times too small. The PROJ pipeline step
# unitconvert with the same short name, dm, is right: 1 dm is 0.1 m.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check pyproj==3.7.2
"$place/venv/bin/python" - <<'PY'
import pyproj
from pyproj.database import get_units_map

units = {unit.proj_short_name: unit.conv_factor for unit in get_units_map(auth_name="PROJ", category="linear").values()}
step = pyproj.Transformer.from_pipeline("+proj=unitconvert +z_in=dm +z_out=m")
converted = step.transform(0, 0, 1.0)[2]
print("table: 1 dm =", units["dm"], "m; pipeline: 1 dm =", round(converted, 6), "m")
assert units["dm"] == 0.01
assert abs(converted - 0.1) < 1e-12
PY
