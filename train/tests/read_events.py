"""Print what TensorBoard itself reads from a folder of event files, as one JSON object.

    pip install tensorboard
    python3 train/tests/read_events.py out/1-pretrain/events
"""

import json
import sys

from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.util import tensor_util

accumulator = plugin_event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"tensors": 0})
accumulator.Reload()

series = {}
for tag in accumulator.Tags()["tensors"]:
    plugin = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
    points = []
    for event in accumulator.Tensors(tag):
        value = tensor_util.make_ndarray(event.tensor_proto)
        text = plugin == "text"
        points.append([event.step, value.item().decode() if text else round(float(value), 6)])
    series[tag] = {"plugin": plugin, "points": points}

json.dump(series, sys.stdout, ensure_ascii=False, indent=1, sort_keys=True)
print()
