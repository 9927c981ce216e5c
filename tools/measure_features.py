"""Does a distance mind what people mind? Do features move with how much pictures are spoilt? On unseen photographs.

python tools/measure_features.py --data ../shared/data [--small FILE] [--judge FILE]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from degradations import MARGIN, ORDER, STRONGEST, Kind, at_psnr, degradation, trim
from feature_corpus import PHOTOS, UNSEEN, read_pool
from jaxtyping import Bool, Float
from torch import Tensor

from darkroom.core.pictures import from_bytes
from darkroom.core.shapes import Images, PerSample
from darkroom.nn.feature_file import SHIPPED, load_features
from darkroom.nn.features import Judge, PerceptualDistance

Distance = Callable[[Images, Images], PerSample]

LEVELS = (24.0, 28.0)  # dB
RISING = (36.0, 32.0, 28.0, 24.0, 20.0)  # dB, from mild to strong
SPACE = 64 + 2 * MARGIN


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--small", type=Path, default=SHIPPED / "small.safetensors")
    parser.add_argument("--judge", type=Path, default=SHIPPED / "judge.safetensors")
    parser.add_argument("--count", type=int, default=400, help="photographs at most, per set")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = load_features(asked.small)
    small = PerceptualDistance(found.network, heads=found.heads, name=found.name, eps=found.spec.eps)
    judge = Judge(load_features(asked.judge))
    sets = {
        "commons": torch.cat([middles(asked.data / UNSEEN / split) for split in ("train", "test")]),
        "nuclei test": middles(asked.data / "nuclei_128" / "test"),
    }
    for name, pictures in sets.items():
        chosen = spread(pictures, asked.count)
        print_order(name, chosen, distances={"small": small, "judge": judge.distance})
        print_growth(name, chosen, distances={"small": small, "judge": judge.distance})
    print_frechet(judge, asked.data)


def middles(folder: Path) -> Images:
    """The centre of every picture of a split, 64 px and the margin."""
    pictures = from_bytes(read_pool(folder).pictures)
    top = (pictures.shape[2] - SPACE) // 2
    return pictures[..., top : top + SPACE, top : top + SPACE]


def spread(pictures: Images, count: int) -> Images:
    """At most `count` pictures, evenly from the whole."""
    return pictures[:: max(1, -(-len(pictures) // count))]


@torch.no_grad()
def in_batches(distance: Distance, images: Images, *, targets: Images) -> PerSample:
    """The distance of many pairs."""
    return torch.cat([distance(a, b) for a, b in zip(images.split(64), targets.split(64), strict=True)])


def table(pictures: Images, *, psnr: float, kinds: Sequence[Kind]) -> dict[Kind, tuple[Images, Bool[Tensor, " b"]]]:
    """The pictures degraded to one PSNR in each way, and where that was possible."""
    wanted = torch.full((len(pictures),), psnr)
    return {kind: at_psnr(kind, pictures, psnr=wanted, generator=torch.Generator().manual_seed(1)) for kind in kinds}


def print_order(name: str, pictures: Images, *, distances: dict[str, Distance]) -> None:
    """Share of pictures in which the first degradation is nearer than the second, at equal PSNR."""
    clean = trim(pictures)
    print(f"\n{name}, {len(pictures)} photographs: how often the first is nearer than the second at equal PSNR")
    print(f"{'':20}" + "".join(f"{f'{who} {psnr:.0f} dB':>16}" for psnr in LEVELS for who in distances) + "   pictures")
    away: dict[tuple[str, float], dict[Kind, PerSample]] = {}
    reached: dict[float, dict[Kind, Bool[Tensor, " b"]]] = {}
    for psnr in LEVELS:
        worse = table(pictures, psnr=psnr, kinds=tuple(STRONGEST))
        reached[psnr] = {kind: fits for kind, (_, fits) in worse.items()}
        for who, distance in distances.items():
            away[who, psnr] = {k: in_batches(distance, images, targets=clean) for k, (images, _) in worse.items()}
    for mild, bad in ORDER:
        cells, counts = "", []
        for psnr in LEVELS:
            fits = reached[psnr][mild] & reached[psnr][bad]
            counts.append(str(int(fits.sum())))
            for who in distances:
                right = (away[who, psnr][mild] < away[who, psnr][bad])[fits]
                cells += f"{f'{100 * right.float().mean():.0f} %':>16}"
        print(f"{f'{mild} < {bad}':20}{cells}   {'/'.join(counts)}")
    for kind in STRONGEST:
        cells = "".join(f"{away[who, psnr][kind].median():16.4f}" for psnr in LEVELS for who in distances)
        print(f"{f'median {kind}':20}{cells}")


def print_growth(name: str, pictures: Images, *, distances: dict[str, Distance]) -> None:
    """Share of pictures whose distance grows at every step from 36 to 20 dB, as far as they go."""
    clean = trim(pictures)
    print(f"\n{name}: how often the distance grows at every step of {', '.join(f'{p:.0f}' for p in RISING)} dB")
    print(f"{'':20}" + "".join(f"{who:>16}" for who in distances))
    for kind in STRONGEST:
        steps = [table(pictures, psnr=psnr, kinds=(kind,))[kind] for psnr in RISING]
        cells = ""
        for distance in distances.values():
            values = torch.stack([in_batches(distance, images, targets=clean) for images, _ in steps])
            fits = torch.stack([fits for _, fits in steps])
            grows = ((values[1:] > values[:-1]) | ~fits[1:] | ~fits[:-1]).all(0)
            cells += f"{f'{100 * grows.float().mean():.0f} %':>16}"
        print(f"{kind:20}{cells}")


@torch.no_grad()
def print_frechet(judge: Judge, data: Path) -> None:
    """Fréchet distances of pooled features: halves of a set, spoilt copies, other sets."""
    photos = torch.cat([middles(data / UNSEEN / split) for split in ("train", "test")])
    chosen = photos[torch.randperm(len(photos), generator=torch.Generator().manual_seed(0))]
    first, second = chosen.chunk(2)
    reference = _features(judge, trim(first))
    print("\nFréchet distance of judge.features to one half of commons")
    print(f"{'the other half':24}{frechet(reference, _features(judge, trim(second))):10.3f}")
    for kind in ("blur", "noise", "blocks", "cast", "shift"):
        apply = degradation(kind, second, generator=torch.Generator().manual_seed(1))
        for share in (0.1, 0.2, 0.4, 0.8):
            strength = share * STRONGEST[kind]
            worse = trim(apply(torch.full((len(second),), strength)))
            print(f"{f'{kind} {strength:.2f}':24}{frechet(reference, _features(judge, worse)):10.3f}")
    for name in PHOTOS:
        other = _any_size(data / name / "train", len(first))
        print(f"{name:24}{frechet(reference, _features(judge, other)):10.3f}")


def _any_size(folder: Path, count: int) -> Images:
    pictures = spread(from_bytes(read_pool(folder).pictures), count)
    top = (pictures.shape[2] - 64) // 2
    return pictures[..., top : top + 64, top : top + 64]


def _features(judge: Judge, pictures: Images) -> Float[Tensor, "n d"]:
    return torch.cat([judge.features(each) for each in pictures.split(64)]).double()


def frechet(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½), the trace of the root by eigenvalues (Heusel et al. 2017)."""
    values = torch.linalg.eigvals(a.T.cov() @ b.T.cov()).real.clamp(min=0).sqrt().sum()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    return float(gap + a.T.cov().trace() + b.T.cov().trace() - 2 * values)


if __name__ == "__main__":
    main()
