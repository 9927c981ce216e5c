"""Muon: orthogonal steps beside torch's own, layouts of memory, what is left to AdamW, and going on."""

import copy

import pytest
import torch
from torch import Tensor, nn

from darkroom.core.compute import Compute
from darkroom.train.muon import orthogonal
from darkroom.train.optim import TrainSpec, build_optimizer, moments, optimizer_of

SPEC = TrainSpec(steps=10, batch=1, learning_rate=1e-2, weight_decay=0.1, optimizer="muon")
PLAIN = SPEC.model_copy(update={"optimizer": "adamw"})


class Small(nn.Module):
    """Each kind of weight once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 40)
        self.inner = nn.Linear(40, 96)
        self.kernel = nn.Conv2d(96, 48, 3)
        self.last = nn.Linear(48, 3)

    def loss(self, seed: int) -> Tensor:
        rows = self.table(torch.randint(50, (2, 5, 5), generator=torch.Generator().manual_seed(seed)))
        images = self.kernel(self.inner(rows).movedim(-1, 1))
        return self.last(images.mean(dim=(2, 3))).square().sum()


def steps(model: Small, optimizer: torch.optim.Optimizer, *, seeds: range) -> dict[str, Tensor]:
    for seed in seeds:
        optimizer.zero_grad()
        model.loss(seed).backward()
        optimizer.step()
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def muon_of(model: Small, *, dtype: torch.dtype = torch.float32) -> torch.optim.Optimizer:
    return optimizer_of(model, list(model.parameters()), spec=SPEC, compute=Compute(torch.device("cpu"), dtype))


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 40, 300), (1, 64, 65)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    scaled = u @ torch.diag_embed(torch.linspace(0.02, 1, shape[1], dtype=torch.float64).expand(shape[:2])) @ v
    found = orthogonal(scaled.float(), dtype=dtype).double()
    inside = u.mT @ found @ v.mT  # diagonal, were it exact
    values = inside.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.3
    assert values.max() < 1.25
    assert (inside - torch.diag_embed(values)).abs().max() < (1e-4 if dtype == torch.float32 else 0.05)


def test_is_torchs_own_on_matrices() -> None:
    ours = nn.Parameter(torch.randn(48, 200, generator=torch.Generator().manual_seed(2)))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = build_optimizer([ours], SPEC, dtype=torch.bfloat16)
    reference = torch.optim.Muon([theirs], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    begun = ours.detach().clone()
    for seed in range(5):
        ours.grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(10 + seed))
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    assert (ours - begun).norm() > 0.5
    assert (ours - theirs).norm() < 0.01 * (ours - begun).norm()


def test_kernels_laid_out_either_way_end_alike() -> None:
    plain, laid = Small(), Small()
    laid.kernel.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    found = steps(plain, muon_of(plain), seeds=range(4)), steps(laid, muon_of(laid), seeds=range(4))
    assert laid.kernel.weight.is_contiguous(memory_format=torch.channels_last)
    for name, each in found[0].items():
        assert torch.allclose(each, found[1][name], atol=1e-5), name


def test_tables_vectors_and_last_layers_are_adamws() -> None:
    model = Small()
    begun = {name: each.detach().clone() for name, each in model.named_parameters()}
    other = copy.deepcopy(model)
    muon = muon_of(model)
    model.loss(0).backward()
    other.loss(0).backward()
    muon.step()
    build_optimizer(list(other.parameters()), PLAIN).step()
    equal = {name for name, each in other.named_parameters() if torch.equal(each, model.get_parameter(name))}
    assert equal == {name for name in begun if name not in ("inner.weight", "kernel.weight")}
    for name in ("inner.weight", "kernel.weight"):
        moved = (model.get_parameter(name) - begun[name] * (1 - 1e-2 * 0.1)).detach().flatten(1)
        step = 1e-2 * 0.2 * max(moved.shape) ** 0.5  # of each direction: together as long as Adam's steps usually are
        assert 0.65 < torch.linalg.matrix_norm(moved, 2) / step < 1.25


def test_goes_on_from_its_state_to_the_bit() -> None:
    model = Small()
    model.kernel.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = muon_of(model, dtype=torch.bfloat16)
    steps(model, optimizer, seeds=range(3))
    other = copy.deepcopy(model)
    again = muon_of(other, dtype=torch.bfloat16)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    whole, resumed = steps(model, optimizer, seeds=range(3, 6)), steps(other, again, seeds=range(3, 6))
    assert all(torch.equal(each, resumed[name]) for name, each in whole.items())


def test_moments_are_counted_as_they_are_kept() -> None:
    model = Small()
    optimizer = muon_of(model)
    steps(model, optimizer, seeds=range(1))
    kept = sum(value.numel() for each in optimizer.state.values() for name, value in each.items() if name != "step")
    assert kept == moments(model, SPEC) < moments(model, PLAIN) == 2 * sum(p.numel() for p in model.parameters())
