"""What a user would build from diffusers' blocks for a folder of classes, in the same minutes as `darkroom train`.

    pip install -c constraints.txt diffusers
    python benchmarks/diffusers_blocks.py ../shared/data/sign_digits_64 --minutes 30 --out rival

An AutoencoderKL (f = 4) takes a third of the time, a UNet2DModel with class embeddings on its latents the rest: both of
sizes that suit a small machine, in bfloat16 where it is native, with warm-up, a cosine decay over the time, averaged
weights, v-prediction, and one class in ten dropped for guidance. Ends with `--count` pictures, classes in turn.

The sides have pictures, minutes and cores in common. Only `darkroom train` has a perceptual term, whose network comes
with the package and learnt, among much else, from the training split of sign_digits_64 (docs/features.md), and a patch
adversary; diffusers has blocks, and no loss for a first stage. Ours for the judge, in the same order of classes:

    darkroom train ../shared/data/sign_digits_64 minutes=30 --out ours-run
    darkroom sample --model ours-run --label 0 --label 1 ... --label 9 --count 40 --out ours
    python benchmarks/judge.py ../shared/data/sign_digits_64 ours rival
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from darkroom.core.compute import Compute, training_compute
from darkroom.core.pictures import from_bytes, save_png, to_bytes, to_pictures
from darkroom.data.examples import Source
from darkroom.data.sources import open_data
from darkroom.metrics import psnr

SIDE, BATCH, DROP, GUIDANCE, STEPS = 64, 32, 0.1, 2.0, 50
EMA = 0.999


def pictures(source: Source) -> tuple[Tensor, Tensor]:
    """(n, 3, 64, 64) bytes and (n,) labels."""
    examples = [source.example(row) for row in range(len(source))]
    labels = torch.tensor([source.label(row) for row in range(len(source))])
    return torch.stack([to_bytes(each.picture.convert("RGB").resize((SIDE, SIDE))) for each in examples]), labels


def rows(count: int, *, seed: int) -> Iterator[Tensor]:
    """Endless batches of row numbers, each picture once a pass."""
    dice = torch.Generator().manual_seed(seed)
    queue = torch.empty(0, dtype=torch.long)
    while True:
        while len(queue) < BATCH:
            queue = torch.cat([queue, torch.randperm(count, generator=dice)])
        yield queue[:BATCH]
        queue = queue[BATCH:]


def train(
    model: nn.Module,
    loss: Callable[[], Tensor],
    *,
    seconds: float,
    rate: float,
    compute: Compute,
    name: str,
) -> int:
    """Minimise for so long; the model ends with its averaged weights. Answers the number of steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    averaged = EMAModel(model.parameters(), decay=EMA)
    started, shown = time.monotonic(), 0.0
    for step in itertools.count():
        spent = time.monotonic() - started
        if spent > seconds:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * spent / seconds))
        with compute.autocast():
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        averaged.step(model.parameters())
        if spent - shown > 30:
            shown = spent
            print(f"{name} step {step}  loss {float(value):.4f}  {seconds - spent:.0f} s left", flush=True)
    averaged.copy_to(model.parameters())
    return step


def first_stage(images: Tensor, *, seconds: float, compute: Compute) -> tuple[AutoencoderKL, int]:
    """f = 4, four channels, L1, and the usual weight of the KL term beside a sum over all values of a picture."""
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=SIDE,
    )
    compute.host(model)
    batches = rows(len(images), seed=0)

    def loss() -> Tensor:
        given = compute.place(from_bytes(images[next(batches)]))
        posterior = model.encode(given).latent_dist
        made = model.decode(posterior.sample()).sample
        return F.l1_loss(made.float(), given) + 1e-6 * posterior.kl().mean() / given[0].numel()

    steps = train(model, loss, seconds=seconds, rate=5e-4, compute=compute, name="first stage")
    return model.eval(), steps


@torch.no_grad()
def encoded(model: AutoencoderKL, images: Tensor, *, compute: Compute) -> tuple[Tensor, Tensor, float]:
    """Means and deviations of posteriors, so that latents have unit deviation, and what they were multiplied by."""
    found = [model.encode(compute.place(from_bytes(part))).latent_dist for part in images.split(64)]
    mean, deviation = torch.cat([each.mean for each in found]), torch.cat([each.std for each in found])
    scale = 1 / float((mean.var() + deviation.square().mean()).sqrt())
    return mean * scale, deviation * scale, scale


@torch.no_grad()
def quality(model: AutoencoderKL, images: Tensor) -> float:
    """Mean PSNR of reconstructions, dB."""
    given = from_bytes(images)
    return float(psnr(model.decode(model.encode(given).latent_dist.mean).sample.clamp(-1, 1), given).mean())


def denoiser(
    mean: Tensor,
    deviation: Tensor,
    labels: Tensor,
    *,
    classes: int,
    seconds: float,
    compute: Compute,
    scheduler: DDIMScheduler,
) -> tuple[UNet2DModel, int]:
    """A class-conditional U-Net on 16 x 16 latents that predicts v; class `classes` is none."""
    model = UNet2DModel(
        sample_size=SIDE // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=32,
        num_class_embeds=classes + 1,
    )
    compute.host(model)
    batches = rows(len(mean), seed=1)

    def loss() -> Tensor:
        chosen = next(batches)
        clean = mean[chosen] + deviation[chosen] * torch.randn_like(mean[chosen])
        noise = torch.randn_like(clean)
        steps = torch.randint(scheduler.config.num_train_timesteps, (len(chosen),))
        given = torch.where(torch.rand(len(chosen)) < DROP, classes, labels[chosen])
        noisy = compute.place(scheduler.add_noise(clean, noise, steps))
        answer = model(noisy, compute.place(steps), class_labels=compute.place(given)).sample
        return F.mse_loss(answer.float(), compute.place(scheduler.get_velocity(clean, noise, steps)))

    steps = train(model, loss, seconds=seconds, rate=5e-4, compute=compute, name="denoiser")
    return model.eval(), steps


@torch.no_grad()
def drawn(
    model: UNet2DModel, stage: AutoencoderKL, *, labels: Tensor, classes: int, scale: float, scheduler: DDIMScheduler
) -> Tensor:
    """(b, 3, 64, 64) in [-1, 1]: DDIM with guidance."""
    latents = torch.randn(len(labels), 4, SIDE // 4, SIDE // 4)
    scheduler.set_timesteps(STEPS)
    both = torch.cat([labels, torch.full_like(labels, classes)])
    for step in scheduler.timesteps:
        steered, free = model(torch.cat([latents, latents]), step, class_labels=both).sample.chunk(2)
        latents = scheduler.step(free + GUIDANCE * (steered - free), step, latents).prev_sample
    return stage.decode(latents / scale).sample


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    started, compute = time.monotonic(), training_compute("cpu")
    splits = open_data(options.data)
    images, labels = pictures(splits.train)
    classes = int(labels.max()) + 1
    seconds = 60 * options.minutes
    stage, stage_steps = first_stage(images, seconds=seconds / 3, compute=compute)
    mean, deviation, scale = encoded(stage, images, compute=compute)
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
    )
    left = seconds - (time.monotonic() - started)
    model, steps = denoiser(
        mean, deviation, labels, classes=classes, seconds=left, compute=compute, scheduler=scheduler
    )
    trained = time.monotonic() - started
    options.out.mkdir(parents=True, exist_ok=True)
    for place, part in enumerate((torch.arange(options.count) % classes).split(50)):
        made = drawn(model, stage, labels=part, classes=classes, scale=scale, scheduler=scheduler)
        for offset, picture in enumerate(to_pictures(made)):
            save_png(picture, options.out / f"{50 * place + offset:04}.png")
    print(
        f"{trained / 60:.1f} minutes; first stage {stage_steps} steps, {stage.num_parameters()} parameters, "
        f"{quality(stage, pictures(splits.test)[0]):.2f} dB on test pictures; "
        f"denoiser {steps} steps, {model.num_parameters()} parameters; {options.count} pictures in {options.out}"
    )


if __name__ == "__main__":
    main()
