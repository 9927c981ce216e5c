"""What FSDP changes beside DDP: losses, what a process holds, seconds of a step (gloo, one machine, one thread each).

python tools/measure_parted.py                                  # shapes-text's denoiser on 2 processes
python tools/measure_parted.py --ranks 4 --steps 20 --precision bfloat16

Latents and captions are drawn, for what is compared does not depend on them.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from darkroom.core.compute import training_compute
from darkroom.core.parallel import in_parts, leave, rank, together
from darkroom.core.record import read_lines, write_json
from darkroom.data.inputs import Fixed
from darkroom.data.latents import LatentTable
from darkroom.diffusion.model import LatentDiffusion
from darkroom.recipes.read import recipe
from darkroom.train.denoiser import Latents, train_denoiser
from darkroom.train.events import Advance

STRATEGIES = ("ddp", "fsdp")
PICTURES, HELD_OUT = 512, 8


def held() -> int:
    """Bytes of all tensors that this process keeps alive, DDP's buckets of gradients among them."""
    found: dict[int, int] = {}
    for each in gc.get_objects():
        if isinstance(each, Tensor):
            own = each.to_local() if in_parts(each) else each  # pyright: ignore[reportAttributeAccessIssue]
            storage = own.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def tables(model: LatentDiffusion) -> Latents:
    """Latents with unit deviation, and ids of captions."""
    draw = torch.Generator().manual_seed(0)
    side = model.spec.image_size

    def table(count: int) -> tuple[LatentTable, dict[str, Fixed]]:
        mean = torch.randn((count, 1, *model.latent_shape((side, side))), generator=draw)
        (text,) = model.spec.conditioners
        ids = torch.randint(100, (count, text.encoder.length), generator=draw)  # pyright: ignore[reportAttributeAccessIssue]
        return LatentTable([mean], None, key=""), {text.field: Fixed(ids)}

    (train, train_inputs), (test, test_inputs) = table(PICTURES), table(HELD_OUT)
    return Latents(train=train, train_inputs=train_inputs, test=test, test_inputs=test_inputs)


def train(options: argparse.Namespace) -> None:
    """One process of a training."""
    torch.set_num_threads(1)
    with together():
        changes = [f"steps={options.steps}", f"batch={options.batch}", "log_every=1", f"precision={options.precision}"]
        changes += [f"strategy={options.strategy}", f"sample_every={options.steps}", f"save_every={options.steps}"]
        found = recipe(options.recipe, overrides=[f"denoiser.train.{each}" for each in changes])
        spec, part = found.model_spec(), found.denoiser
        assert spec is not None
        assert part is not None
        assert part.train is not None
        before = resident()
        torch.manual_seed(0)
        model = LatentDiffusion(spec)
        model.scale = torch.ones(())
        events = train_denoiser(
            model,
            tables(model),
            train=part.train,
            compute=training_compute("cpu", part.train.precision),
            folder=options.folder,
            seed=0,
            preview=lambda: [Image.new("RGB", (8, 8))],
        )
        for event in events:
            if isinstance(event, Advance) and event.progress.step == options.steps - 1:
                seen = {"tensors": held(), "resident": resident() - before}
                write_json(options.folder / f"{rank()}.json", seen)
    leave(0)


def told(options: argparse.Namespace, folder: Path) -> dict[str, list[float] | float]:
    """Losses of a training, and what its hungriest process held between two steps, in MB."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.ranks)]
    words += [__file__, "--strategy", folder.name, "--folder", str(folder)]
    for name in ("steps", "batch", "recipe", "precision"):
        words += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the training ended with {done.returncode}: {done.stderr[-2000:]}")
    lines = [line for line in read_lines(folder / "log.jsonl") if "loss" in line]
    ranks = [json.loads((folder / f"{number}.json").read_text()) for number in range(options.ranks)]
    most = {f"{name}, MB": round(max(each[name] for each in ranks) / 1e6, 1) for name in ranks[0]}
    pace = (lines[-1]["seconds"] - lines[0]["seconds"]) / (len(lines) - 1)
    return {"losses": [line["loss"] for line in lines], **most, "seconds a step": round(pace, 3)}


def main() -> None:
    """Both strategies, and how far apart their losses are."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--ranks", type=int, default=2)
    asked.add_argument("--steps", type=int, default=40)
    asked.add_argument("--batch", type=int, default=8)
    asked.add_argument("--recipe", default="shapes-text")
    asked.add_argument("--precision", choices=("float32", "bfloat16", "float64"), default="float32")
    asked.add_argument("--strategy", choices=STRATEGIES, help=argparse.SUPPRESS)
    asked.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.strategy is not None:
        train(options)
    with tempfile.TemporaryDirectory() as place:
        found = {name: told(options, Path(place, name)) for name in STRATEGIES}
    curves = [each.pop("losses") for each in found.values()]
    apart = max(abs(one - other) / abs(one) for one, other in zip(*curves, strict=True))
    for name, each in found.items():
        print(f"{name}: {json.dumps(each)}")
    print(f"losses differ by at most {apart:.1e}, of {curves[0][0]:.3f} at first and {curves[0][-1]:.3f} at last")


if __name__ == "__main__":
    main()
