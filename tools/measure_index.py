"""What a data set in shards costs to know: seconds to list it, and what stays in memory of each sample.

python tools/measure_index.py                          # 100,000 samples with captions, in shards of 1,000
python tools/measure_index.py --samples 1000000 --together 10000

Pictures are of eight pixels and alike, for only what is known of them is measured. The first listing makes the index.
"""

import argparse
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from PIL import Image

from darkroom.data.order import Order
from darkroom.data.parts import part_of
from darkroom.data.sources import open_data


def write(folder: Path, *, samples: int, together: int) -> None:
    """Shards of so many samples each."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 120, 30)).save(data, "png")
    for number, start in enumerate(range(0, samples, together)):
        with tarfile.open(folder / f"{number:06}.tar", "w") as tar:
            for each in range(start, min(start + together, samples)):
                words = f"a photograph of the thing with number {each}, as somebody who saw it would tell it".encode()
                for kind, content in (("png", data.getvalue()), ("txt", words)):
                    info = tarfile.TarInfo(f"{each:09}.{kind}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def look(place: str) -> None:
    """List a data set, and ask for the captions of the first samples of a run."""
    before, began = resident(), time.monotonic()
    train, test = open_data(place)
    seconds, part = time.monotonic() - began, part_of(train)
    assert part is not None
    order = Order(len(train), seed=0, shards=part.shards)
    said = [train.caption(order.row(index)) for index in range(256)]
    count, grown = len(train) + len(test), resident() - before
    print(
        f"{count} samples listed in {seconds:.1f} s; the process grew by {grown / count:.1f} bytes a sample, "
        f"{len(pickle.dumps(train)) / count:.2f} are sent to each other rank; e.g. {said[0]!r}",
        flush=True,
    )


def main() -> None:
    """Twice, each time in a process of its own: an index is made, and one is there."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--samples", type=int, default=100_000)
    asked.add_argument("--together", type=int, default=1000)
    asked.add_argument("--place", help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.place is not None:
        look(options.place)
        return
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "shards")
        shards.mkdir()
        write(shards, samples=options.samples, together=options.together)
        there = os.environ | {"DARKROOM_CACHE": str(Path(folder, "cache"))}
        for _ in range(2):
            subprocess.run([sys.executable, __file__, "--place", str(shards)], env=there, check=True)
        kept = sum(path.stat().st_size for path in Path(folder, "cache", "shards").iterdir())
        print(f"the index has {kept / options.samples:.1f} bytes a sample on disk")


if __name__ == "__main__":
    main()
