"""What goes from the kernel to a page, recorded message by message, and a page that reads it as the browser does."""

import copy
import json
import re
import zlib
from typing import Any

import numpy as np
from comm import DummyComm
from ipywidgets.widgets.widget import _put_buffers


class Wire:
    """The state of each widget when it opens, its updates after that, and the bytes of all messages."""

    def __init__(self, monkeypatch) -> None:
        self.opened: dict[str, dict] = {}
        self.updates: dict[str, list[dict]] = {}
        self.bytes = 0
        wire = self

        class Recorded(DummyComm):
            def publish_msg(self, msg_type, data=None, buffers=None, **_rest):
                data, buffers = copy.deepcopy(data or {}), [bytes(buffer) for buffer in buffers or ()]
                wire.bytes += len(json.dumps(data)) + sum(map(len, buffers))
                state = data.get("state", {})
                _put_buffers(state, data.get("buffer_paths", []), buffers)
                if msg_type == "comm_open":
                    wire.opened[self.comm_id] = state
                elif msg_type == "comm_msg":
                    wire.updates.setdefault(self.comm_id, []).append(state)

        monkeypatch.setattr("comm.create_comm", Recorded)


class Page:
    """A figure as a page holds it: what it was told at first, with all changes since."""

    def __init__(self, wire: Wire, figure) -> None:
        self.updates = wire.updates.setdefault(figure.model_id, [])
        self.seen = len(self.updates)
        opened = wire.opened[figure.model_id]
        self.traces, self.layout = unpacked(opened["_widget_data"]), unpacked(opened["_widget_layout"])

    def follow(self) -> list[dict]:
        """Read what has come since, and give it back."""
        new = [update["_py2js_update"] for update in self.updates[self.seen :] if update.get("_py2js_update")]
        self.seen = len(self.updates)
        for message in new:
            for path, values in message["style_data"].items():
                for number, value in zip(message["style_traces"], values, strict=False):
                    _put(self.traces[number], path, unpacked(value))
            for path, value in message["layout_data"].items():
                _put(self.layout, path, unpacked(value))
        return new


def _put(where: Any, path: str, value: Any) -> None:
    if value == "_undefined_":  # as it was
        return
    *parents, last = (int(part) if part.isdigit() else part for part in re.findall(r"\w+", path))
    for parent in parents:
        where = where[parent] if isinstance(where, list) else where.setdefault(parent, {})
    if value is None:
        where.pop(last, None)
    else:
        where[last] = value


def unpacked(value: Any) -> Any:
    """Packed arrays, and all others, as lists."""
    if isinstance(value, dict):
        if "buffer" in value:
            numbers = zlib.decompress(value["buffer"]) if value["deflated"] else value["buffer"]
            return np.frombuffer(numbers, value["dtype"]).reshape(value["shape"]).tolist()
        return {name: unpacked(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [unpacked(inner) for inner in value] if isinstance(value, (list, tuple)) else value
