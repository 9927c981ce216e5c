"""A judge for one data set that neither side of a comparison used: classifiers trained on the real pictures.

    python benchmarks/judge.py ../shared/data/sign_digits_64 OURS THEIRS

Three judges, each taught by another random half of all real pictures, learn to tell the classes apart, and what was
done to a picture: nothing, blur, blocks, shuffled patches, noise or a cast of colour, each from hardly to plainly
visible. So their features see the look of a picture and not only its class. The other half, which a judge has not
seen, is divided: 400 pictures stand beside those of the folders, the rest are the reference, so that every distance is
between equal numbers of pictures. Prints how well the judges tell classes and damages apart, and the Fréchet and kernel
distances of their features to the reference: for the real pictures, for the same damaged in each way (they must lie
farther off), and for each folder.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from PIL import Image
from torch import Tensor, nn

from darkroom.core.compute import training_compute
from darkroom.core.errors import DarkroomError, InputError
from darkroom.core.pictures import from_bytes, open_picture, to_bytes
from darkroom.data.sources import open_data
from darkroom.metrics import frechet_distance, kernel_distance

SIDE, WIDTH, STEPS, BATCH = 64, 64, 1500, 64
Damage = Callable[[Tensor, float], Tensor]


def blur(images: Tensor, strength: float) -> Tensor:
    """Gaussian, deviation 0.6 to 2.5 pixels."""
    deviation = 0.6 + 1.9 * strength
    at = torch.arange(-6, 7, dtype=torch.float32)
    kernel = torch.exp(-((at / deviation) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images, (6, 6, 6, 6), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def blocks(images: Tensor, strength: float) -> Tensor:
    """Each block of 4 pixels fades into its mean."""
    means = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0)
    return torch.lerp(images, means, 0.3 + 0.7 * strength)


def shuffled(images: Tensor, strength: float) -> Tensor:
    """Two to all sixteen patches of 16 pixels change places."""
    patches = rearrange(images, "b c (h p) (w q) -> (h w) b c p q", p=16, q=16).clone()
    moved = torch.randperm(16)[: 2 + round(14 * strength)]
    patches[moved] = patches[moved.roll(1)]
    return rearrange(patches, "(h w) b c p q -> b c (h p) (w q)", h=4)


def noise(images: Tensor, strength: float) -> Tensor:
    """White, deviation 2 to 15 % of the range."""
    return (images + 2 * (0.02 + 0.13 * strength) * torch.randn_like(images)).clamp(-1, 1)


def cast(images: Tensor, strength: float) -> Tensor:
    """The channels move apart by up to a fifth of the range."""
    direction = F.normalize(torch.randn(1, 3, 1, 1), dim=1)
    return (images + 2 * (0.04 + 0.16 * strength) * direction).clamp(-1, 1)


def undamaged(images: Tensor, strength: float) -> Tensor:
    return images


STRENGTHS = (0.2, 0.8)
DAMAGES: dict[str, Damage] = {"blur": blur, "blocks": blocks, "shuffled": shuffled, "noise": noise, "cast": cast}


class Judge(nn.Module):
    """Pictures (b, 3, 64, 64) to features (b, 64), from which both answers are read linearly."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            )
            for before, width in itertools.pairwise(widths)
        )
        self.joined = nn.Linear(sum(widths[1:]), WIDTH)
        self.kind = nn.Linear(WIDTH, classes)
        self.damage = nn.Linear(WIDTH, 1 + len(DAMAGES))

    def features(self, images: Tensor) -> Tensor:
        """Means over every stage's map, joined."""
        pooled = list[Tensor]()
        for stage in self.stages:
            images = stage(images)
            pooled.append(reduce(images, "b c h w -> b c", "mean"))
            images = F.avg_pool2d(images, 2)
        return torch.tanh(self.joined(torch.cat(pooled, dim=1)))


def real(folder: Path) -> tuple[Tensor, Tensor, int]:
    """All pictures of both splits (n, 3, 64, 64) in [-1, 1], their labels (n,), and the number of classes."""
    splits = open_data(folder)
    rows = [(source, row) for source in splits for row in range(len(source))]
    pictures = [source.example(row).picture for source, row in rows]
    return stacked(pictures), torch.tensor([source.label(row) for source, row in rows]), len(splits.train.classes)


def drawn(folder: Path, *, count: int) -> Tensor:
    """So many pictures of a folder, spread evenly over their names."""
    paths = sorted(path for path in folder.glob("*.png") if path.stem != "grid")
    if len(paths) < count:
        raise InputError(f"{folder}: {len(paths)} pictures, {count} are needed")
    return stacked([open_picture(paths[place * len(paths) // count]) for place in range(count)])


def stacked(pictures: Sequence[Image.Image]) -> Tensor:
    return from_bytes(torch.stack([to_bytes(each.convert("RGB").resize((SIDE, SIDE))) for each in pictures]))


def taught(images: Tensor, labels: Tensor, *, classes: int) -> Judge:
    """Both tasks at once; pictures are shifted a little, which no damage is."""
    judge, compute = Judge(classes), training_compute("cpu")
    compute.host(judge)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    acts = [undamaged, *DAMAGES.values()]
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        chosen = torch.randint(len(images), (BATCH,))
        top, left = (int(each) for each in torch.randint(0, 9, (2,)))
        whole = F.pad(images[chosen], (4, 4, 4, 4), mode="reflect")[..., top : top + SIDE, left : left + SIDE]
        which = torch.arange(BATCH) % len(acts)
        given = torch.cat(
            [acts[kind](each[None], float(torch.rand(()))) for each, kind in zip(whole, which, strict=True)]
        )
        with compute.autocast():
            features = judge.features(compute.place(given))
            kind = F.cross_entropy(judge.kind(features).float(), labels[chosen], label_smoothing=0.05)
            value = kind + F.cross_entropy(judge.damage(features).float(), which)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return judge.eval()


@torch.no_grad()
def seen(judge: Judge, images: Tensor) -> Tensor:
    return torch.cat([judge.features(part) for part in images.split(100)])


@torch.no_grad()
def report(
    judge: Judge, *, reference: Tensor, beside: Tensor, labels: Tensor, folders: Mapping[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """(Fréchet, kernel) distances to the reference by what was looked at; first two shares told apart, both alike."""
    sets = {"real pictures": beside}
    for name, act in DAMAGES.items():
        for strength in STRENGTHS:
            sets[f"{name} {strength}"] = act(beside, strength)
    features = {name: seen(judge, images) for name, images in (sets | dict(folders)).items()}
    right = [
        float((judge.damage(features[name]).argmax(1) == kind).float().mean())
        for kind, name in enumerate(("real pictures", *(f"{each} {STRENGTHS[-1]}" for each in DAMAGES)))
    ]
    classes = float((judge.kind(features["real pictures"]).argmax(1) == labels).float().mean())
    found = {"classes told apart": (classes, classes), "damages told apart": (sum(right) / len(right),) * 2}
    whole = seen(judge, reference)
    for name, each in features.items():
        found[name] = frechet_distance(each, whole), kernel_distance(each, whole)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--count", type=int, default=400, help="pictures of each folder")
    parser.add_argument("--judges", type=int, default=3)
    options = parser.parse_args()
    images, labels, classes = real(options.data)
    try:
        folders = {str(folder): drawn(folder, count=options.count) for folder in options.folders}
    except DarkroomError as error:
        parser.error(str(error))
    answers: list[dict[str, tuple[float, float]]] = []
    for seed in range(options.judges):
        torch.manual_seed(seed)
        order = torch.randperm(len(images))
        half = order[: len(images) // 2]
        beside, reference = order[len(half) : len(half) + options.count], order[len(half) + options.count :]
        judge = taught(images[half], labels[half], classes=classes)
        answers.append(
            report(judge, reference=images[reference], beside=images[beside], labels=labels[beside], folders=folders)
        )
        print(f"\nafter {seed + 1} of {options.judges} judges")
        print(table(answers), flush=True)


def table(answers: Sequence[Mapping[str, tuple[float, float]]]) -> str:
    """Means over the judges, and the least and most Fréchet distance that one of them says."""
    lines = [f"{'':<40} {'Fréchet':>10} {'(least,':>9} {'most)':>9} {'kernel':>10}"]
    for name in answers[0]:
        distances, kernels = ([answer[name][place] for answer in answers] for place in (0, 1))
        least, most, middle = min(distances), max(distances), sum(distances) / len(distances)
        lines.append(f"{name:<40} {middle:10.4f} {least:9.4f} {most:9.4f} {sum(kernels) / len(kernels):10.5f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
