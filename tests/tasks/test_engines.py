"""Engines answer what the modules answer, and leave gradients to them."""

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darkroom.core import compute as computes
from darkroom.core.errors import InputError
from darkroom.diffusion.engine import ENGINES, build_engine
from darkroom.nn.packed import PackedConv2d
from darkroom.tasks.load import load
from darkroom.tasks.model import Model
from darkroom.tasks.parts import load_network

ENGINES_HERE = [name for name in ENGINES if name != "auto"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted forms are kept: one takes seconds, and several tests ask for the same."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
    """Nothing is compiled, which takes a minute (`benchmarks/speed.py` does), nothing kept outside of these tests."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: functools.partial(module))
    monkeypatch.setenv("DARKROOM_CACHE", str(kept))
    monkeypatch.setenv("CXX", "true")


def engine_or_skip(name: str) -> str:
    if name == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    return name


def asked(model: Model) -> tuple[Tensor, Tensor, Any]:
    dice = torch.Generator().manual_seed(1)
    x = torch.randn(2, *model.diffusion.latent_shape((16, 16)), generator=dice)
    return x, torch.tensor([3, 30]), model.condition(label=[0, 1])


def moved(path: Path, **options: str) -> Model:
    """A model whose answer is not zero, as that of a fresh one is."""
    model = load(path, device="cpu", **options)
    with torch.no_grad():
        for each in model.diffusion.network.parameters():
            each.add_(0.05 * torch.randn(each.shape, generator=torch.Generator().manual_seed(each.numel())))
    return model


@pytest.mark.parametrize("name", ENGINES_HERE)
def test_every_engine_answers_the_same(model_files: dict[str, Path], name: str) -> None:
    plain = moved(model_files["class"])
    plain.engine = build_engine("eager", compute=plain.compute)
    with torch.no_grad():
        exact = plain.diffusion.whole(plain.diffusion.network)(*asked(plain))
        picture = plain.decoder.decode(exact)
    model = moved(model_files["class"], engine=engine_or_skip(name))
    assert model.engine.name == name
    torch.testing.assert_close(model.network(*asked(model)), exact, rtol=1e-4, atol=1e-4)
    units = model.diffusion.unscaled(exact)
    torch.testing.assert_close(model.decode(exact), plain.decoder.decode(units).detach(), rtol=1e-3, atol=1e-3)
    assert picture.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("name", ENGINES_HERE)
def test_gradients_go_by_the_module(model_files: dict[str, Path], name: str) -> None:
    model = moved(model_files["class"], engine=engine_or_skip(name))
    x, t, conditions = asked(model)
    leaf = x.requires_grad_()
    model.network(leaf, t, conditions).square().sum().backward()
    assert leaf.grad is not None
    assert float(leaf.grad.abs().max()) > 0


@pytest.mark.parametrize("name", ENGINES_HERE)
def test_a_network_alone_is_run_by_it(model_files: dict[str, Path], name: str) -> None:
    network = load_network(model_files["class"], device="cpu", engine=engine_or_skip(name))
    model = load(model_files["class"], device="cpu")
    x, t, conditions = asked(model)
    with torch.no_grad():
        torch.testing.assert_close(network(x, t, conditions), model.network(x, t, conditions), rtol=1e-4, atol=1e-4)
    network(x, t, conditions).sum().backward()
    assert network.head.weight.grad is not None


@pytest.mark.parametrize("name", ENGINES_HERE)
def test_a_network_alone_in_bfloat16_is_run_by_it(model_files: dict[str, Path], name: str) -> None:
    """Weights, answers and gradients are of that type; OpenVINO is given float32 and rounds by itself."""
    network = load_network(model_files["class"], device="cpu", dtype="bfloat16", engine=engine_or_skip(name))
    model = load(model_files["class"], device="cpu")
    x, t, conditions = asked(model)
    exact = model.network(x, t, conditions)
    for given in (x, x.bfloat16()):
        with torch.no_grad():
            answer = network(given, t, conditions)
        assert answer.dtype == torch.bfloat16
        assert float((answer.float() - exact).norm() / exact.norm()) < 0.03
    network(x.bfloat16(), t, conditions).sum().backward()
    assert network.head.weight.grad is not None
    assert network.head.weight.dtype == torch.bfloat16


def test_layers_are_packed_when_a_model_first_draws(model_files: dict[str, Path]) -> None:
    model = load(model_files["class"], device="cpu")
    assert not isinstance(model.diffusion.network.stem, PackedConv2d)
    model.sample(label=0, steps=2)
    assert isinstance(model.diffusion.network.stem, PackedConv2d)


def test_openvino_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    build_engine("openvino", compute=computes.Compute(torch.device("cpu")))
    assert sys.modules["openvino_telemetry"] is None


def test_openvino_tells_times_apart_in_bfloat16(
    model_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which 998 and 999 are the same, with waves of anything; also where float32 was compiled before."""
    engine_or_skip("openvino")
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
    exact = moved(model_files["class"])
    before = moved(model_files["class"], engine="openvino")
    before.network(*asked(before))
    rounded = moved(model_files["class"], engine="openvino", dtype="bfloat16")
    x, _, condition = asked(exact)
    for t in (torch.tensor([998, 998]), torch.tensor([999, 999])):
        with torch.no_grad():
            wanted = exact.diffusion.whole(exact.diffusion.network)(x, t, condition)
        error = (rounded.network(x, t, condition) - wanted).norm() / wanted.norm()
        assert error < 0.03


def test_openvino_keeps_what_it_converted(
    model_files: dict[str, Path], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    first = load(model_files["class"], device="cpu", engine="openvino")
    first.network(*asked(first))
    assert all((each / "form.xml").is_file() for each in (kept / "openvino").iterdir())
    monkeypatch.setattr(library, "convert_model", None)
    again = load(model_files["class"], device="cpu", engine="openvino")
    again.network(*asked(again))
    with pytest.raises(InputError, match="multiples of 2"):
        again.network(torch.zeros(1, 3, 7, 8), torch.tensor([3]), again.condition(label=[0]))


def test_what_an_engine_needs_is_said(model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="engine compiled needs a C\\+\\+ compiler, and there is no no-such-compiler"):
        load(model_files["class"], device="cpu", engine="compiled")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="engine openvino needs the package openvino"):
        load(model_files["class"], device="cpu", engine="openvino")
    with pytest.raises(InputError, match="engine openvino is for processors"):
        build_engine("openvino", compute=computes.Compute(torch.device("meta")))


def test_where_memory_is_short_the_modules_stay_as_they_are(
    model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.diffusion.engine.available", lambda: 1000)
    model = load(model_files["class"], device="cpu")
    assert len(model.sample(label=0, steps=2)) == 1
    assert not isinstance(model.diffusion.network.stem, PackedConv2d)


def test_an_answer_of_a_captured_graph_is_the_callers_own(
    model_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of CUDA writes every answer into the same memory; solvers look back at earlier ones."""
    memory = torch.zeros(3)
    monkeypatch.setattr(torch, "compile", lambda call, **_: lambda *inputs: memory.fill_(len(inputs)))
    engine = build_engine("compiled", compute=computes.Compute(torch.device("cuda")))
    module = load(model_files["class"], device="cpu").diffusion.network
    network = engine.network(module)
    first, second = network(1), network(1, 2)
    assert (first.tolist(), second.tolist()) == ([1, 1, 1], [2, 2, 2])
