"""Memory does not grow with the number of pictures, beyond a few numbers for each."""

import json
import os
import subprocess
import sys

SCRIPT = """
import json, resource, sys, tempfile, torch
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from darkroom.core.compute import sampling_compute
from darkroom.data.sources import ShapesSource
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate import lots, quality
from darkroom.metrics import contributions

quality.KEPT, contributions._DRAWN = 200, 2**18  # bounds that so few pictures reach
torch.set_num_threads(1)

class Noise:
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def key(self): return f"noise-{self.count}"
    def pictures(self, rows):
        draw = torch.Generator().manual_seed(rows.start)
        return torch.randint(0, 256, (len(rows), 3, 64, 64), generator=draw, dtype=torch.uint8)

class Means:
    name, hash, preprocessing = "means", "0", {}
    def look(self, images):
        return {"features": torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)}

real = lots.OfSource(ShapesSource(0, count=100), TransformSpec(size=64))
peaks = []
for count in (1000, 9000):
    with tempfile.TemporaryDirectory() as folder:
        quality.measure(quality.Measuring(subject={"name": "noise"}, made=Noise(count), real=real, networks=[Means()],
            folder=Path(folder), compute=sampling_compute("cpu")))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps(peaks))
"""


def test_nine_times_as_many_pictures_need_no_more() -> None:
    alone = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # what threads keep for themselves differs from run to run
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=alone)
    few, many = json.loads(done.stdout)
    pixels = (9000 - 1000) * 3 * 64 * 64
    assert many - few < pixels / 2, f"{many - few} bytes more, the pictures have {pixels}"
