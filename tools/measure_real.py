"""Do models of real pictures do what they are told? A network that learnt real ones alone looks at what they draw.

    python tools/measure_real.py nuclei_128 runs/nuclei-map-0 --minutes 4 --count 119

A small network is trained on the folder's training pictures: it segments (models steered by maps), says where the boxes
of each category are (layouts), or tells classes apart. Then it looks at the test pictures, and at what each model draws
when asked for the same: mean IoU of classes, mean IoU of the ground that boxes cover, or share of classes right. A
model that draws as well as the world reaches the figure of real pictures; what is missing to 1 is the network's own.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import darkroom
from darkroom.core.compute import training_compute
from darkroom.core.errors import DarkroomError, InputError
from darkroom.core.pictures import from_bytes, to_bytes
from darkroom.core.seeds import generator
from darkroom.core.shapes import Images
from darkroom.data.examples import Source
from darkroom.data.inputs import maps, seen_things
from darkroom.data.loader import still_batches
from darkroom.data.sources import Subset, open_data
from darkroom.data.transforms import TransformSpec
from darkroom.evaluate.conditions import mean_iou
from darkroom.tasks.generate import generate
from darkroom.tasks.held_out import Spoiling, request_for
from darkroom.tasks.model import Model
from darkroom.tasks.settle import settle

Task = Literal["map", "objects", "label"]
BATCH: Final = 16
RATE: Final = 2e-3


def block(inside: int, outside: int) -> nn.Sequential:
    """Two convolutions with norms."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.GroupNorm(8, outside),
        nn.SiLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.GroupNorm(8, outside),
        nn.SiLU(),
    )


class Observer(nn.Module):
    """A value for each class, of the picture (b, k) or of each pixel (b, k, h, w)."""

    def __init__(self, classes: int, *, dense: bool) -> None:
        super().__init__()
        widths = (16, 32, 64, 128)
        self.down = nn.ModuleList(block(3 if at == 0 else widths[at - 1], width) for at, width in enumerate(widths))
        self.up = nn.ModuleList(block(widths[at] + widths[at - 1], widths[at - 1]) for at in (3, 2, 1) if dense)
        self.last = nn.Conv2d(widths[0] if dense else widths[-1], classes, 1)

    def forward(self, images: Images) -> Tensor:
        """Of pictures in [-1, 1]."""
        kept: list[Tensor] = []
        h: Tensor = images
        for at, each in enumerate(self.down):
            h = each(h if at == 0 else F.max_pool2d(h, 2))
            kept.append(h)
        if not len(self.up):
            return self.last(h.mean(dim=(2, 3), keepdim=True))[:, :, 0, 0]
        for at, each in enumerate(self.up):
            h = each(torch.cat([F.interpolate(h, scale_factor=2.0), kept[-2 - at]], dim=1))
        return self.last(h)


def pictures(source: Source, spec: TransformSpec) -> Images:
    """All of them, (n, 3, size, size)."""
    return torch.cat([from_bytes(part.images) for part in still_batches(source, spec, batch_size=64)])


def truth(source: Source, task: Task, *, spec: TransformSpec) -> Tensor:
    """What the network shall say: labels (n,), ids (n, h, w), or the ground that boxes cover (n, k, h, w)."""
    rows = list(range(len(source)))
    if task == "label":
        return torch.tensor([source.label(row) or 0 for row in rows])
    if task == "map":
        return maps(source, spec).take(rows, rows, seed=0)
    ground = torch.zeros(len(rows), len(source.categories), spec.size, spec.size)
    for row in rows:
        for thing in seen_things(source, row):
            left, top, width, height = (round(side * spec.size) for side in thing.box)
            ground[row, thing.category, top : top + max(1, height), left : left + max(1, width)] = 1
    return ground


def loss_of(task: Task, told: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy, of each category by itself where boxes may overlap."""
    if task == "objects":
        return F.binary_cross_entropy_with_logits(told, wanted)
    return F.cross_entropy(told, wanted)


def observer(
    source: Source, task: Task, *, spec: TransformSpec, minutes: float, flip: bool
) -> Callable[[Images], Tensor]:
    """A network that learnt the source, for so many minutes; answers what it says of pictures."""
    compute = training_compute("cpu", "auto")
    images, wanted = pictures(source, spec), truth(source, task, spec=spec)
    counts = {"label": len(source.classes), "map": int(wanted.max()) + 1, "objects": len(source.categories)}
    torch.manual_seed(0)
    network = compute.host(Observer(counts[task], dense=task != "label"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
    began, done, step, draws = time.monotonic(), 0.0, 0, generator(0, 0, purpose="observer")
    while done < 1:
        rows = torch.randint(len(images), (BATCH,), generator=draws)
        part, target = images[rows], wanted[rows]
        if flip and torch.rand((), generator=draws) < 0.5:
            part, target = part.flip(-1), target if task == "label" else target.flip(-1)
        gain, shift = (
            1 + 0.2 * torch.randn(BATCH, 1, 1, 1, generator=draws),
            0.2 * torch.randn(BATCH, 3, 1, 1, generator=draws),
        )
        part = part * gain + shift + 0.03 * torch.randn(part.shape, generator=draws)
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - done)
        with compute.autocast():
            loss = loss_of(task, network(compute.place(part)).float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, done = step + 1, (time.monotonic() - began) / (60 * minutes)
    print(f"the network: {sum(each.numel() for each in network.parameters())} weights, {step} steps of {BATCH}")
    network.eval()

    @torch.no_grad()
    def say(pictures: Images) -> Tensor:
        with compute.autocast():
            told = torch.cat([network(compute.place(part)).float() for part in pictures.split(32)])
        return told > 0 if task == "objects" else told.argmax(1)

    return say


def agreement(task: Task, told: Tensor, wanted: Tensor) -> float:
    """Share of labels, mean IoU of classes, or mean IoU of the ground of each category."""
    if task == "label":
        return float((told == wanted).float().mean())
    if task == "map":
        return mean_iou(told.numpy(), wanted.numpy(), classes=int(wanted.max()) + 1)
    both, either = (told & (wanted > 0)).sum(dim=(0, 2, 3)), (told | (wanted > 0)).sum(dim=(0, 2, 3))
    return float((both / either.clamp(min=1)).mean())


def drawn(model: Model, source: Source, *, spec: TransformSpec, sample: dict[str, Any], batch: int) -> Images:
    """What the model draws when it is asked for the rows of the source."""
    rows = list(range(len(source)))
    asked = request_for(model, source, rows=rows, transform=spec, spoiling=Spoiling(), sample=sample)
    request = settle(model, asked)
    made = [to_bytes(each.picture, 3) for each in generate(model, request, batch=batch)]
    return from_bytes(torch.stack(made))


def task_of(models: Sequence[Model]) -> Task:
    """What they are steered by; `InputError` unless it is the same field of all, and one that can be seen."""
    fields = {each.fields for each in models}
    match list(fields):
        case [("map",)]:
            return "map"
        case [("objects",)]:
            return "objects"
        case [("label",)]:
            return "label"
        case _:
            raise InputError("models steered by maps, boxes or classes are looked at, all by the same")


def measure(
    data: str, names: Sequence[str], *, minutes: float, count: int, sample: dict[str, Any], batch: int, dtype: str
) -> None:
    """Print the figures of real pictures and of each model's."""
    models = [darkroom.load(name, device="cpu", dtype=dtype) for name in names]
    task = task_of(models)
    size = models[0].spec.image_size
    spec = TransformSpec(size=size)
    train, test = open_data(data, size=size)
    test = Subset(test, tuple(range(min(count, len(test)))))
    say = observer(train, task, spec=spec, minutes=minutes, flip=task != "label")
    wanted = truth(test, task, spec=spec)
    found = {"real": agreement(task, say(pictures(test, spec)), wanted)}
    print(f"real {found['real']:.4f}", flush=True)
    for name, model in zip(names, models, strict=True):
        made = drawn(model, test, spec=spec, sample=sample, batch=batch)
        found[name] = agreement(task, say(made), wanted)
        print(f"{name} {found[name]:.4f}, {found[name] / found['real']:.1%} of the real", flush=True)
    print(json.dumps({"task": task, "data": test.name, "pictures": len(test), "sample": sample, "figures": found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="a folder of pictures with maps, boxes or classes")
    parser.add_argument("models", nargs="+", help="models steered by these")
    parser.add_argument("--minutes", type=float, default=4, help="that the network learns")
    parser.add_argument("--count", type=int, default=128, help="test pictures at most")
    parser.add_argument("--steps", type=int, default=None, help="the model's own without")
    parser.add_argument("--guidance", type=float, default=None, help="the model's own without")
    parser.add_argument("--eta", type=float, default=None, help="the model's own without")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16")
    options = parser.parse_args()
    sample = {name: getattr(options, name) for name in ("steps", "guidance", "eta")}
    try:
        measure(
            options.data,
            options.models,
            minutes=options.minutes,
            count=options.count,
            sample={"seed": 0} | {name: value for name, value in sample.items() if value is not None},
            batch=options.batch,
            dtype=options.precision,
        )
    except DarkroomError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
