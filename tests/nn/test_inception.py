"""Inception: sizes that are known, its peculiarities by hand, and its arithmetic written down once more in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.core.errors import ModelFileError
from darkroom.nn.inception import CLASSES, Inception, inception, pooled, resized

TORCHVISION = 27_161_264 - 3_326_696  # parameters of its inception_v3, less those of the auxiliary classifier
MORE_CLASSES = 8 * 2049


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random ones under the published names, with statistics that keep activations alive."""
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name, tensor in Inception().state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        drawn = torch.randn(tensor.shape, generator=draw)
        match name.rsplit(".", 1)[1], tensor.ndim:
            case "running_var", _:
                found[name] = drawn.square() + 0.5
            case "weight", 1:
                found[name] = 1 + 0.2 * drawn
            case "weight", _:
                found[name] = drawn * (2 / tensor[0].numel()) ** 0.5
            case _:
                found[name] = 0.1 * drawn
    return found


def again(levels: Tensor, table: dict[str, Tensor], *, lanes: dict[str, list[int]]) -> tuple[Tensor, Tensor]:
    """The network as functions of the table, block by block, in float64. lanes: widths met on the way."""

    def conv(x: Tensor, name: str, *, stride: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
        x = F.conv2d(x, table[f"{name}.conv.weight"], stride=stride, padding=pad)
        mean, variance = table[f"{name}.bn.running_mean"], table[f"{name}.bn.running_var"]
        gain, bias = table[f"{name}.bn.weight"], table[f"{name}.bn.bias"]
        return F.batch_norm(x, mean, variance, gain, bias, eps=0.001).relu()

    def same(x: Tensor, name: str) -> Tensor:
        height, width = table[f"{name}.conv.weight"].shape[-2:]
        return conv(x, name, pad=(height // 2, width // 2))

    def chain(x: Tensor, block: str, *names: str) -> Tensor:
        for name in names:
            x = same(x, f"{block}.{name}")
        return x

    def mean(x: Tensor) -> Tensor:
        ones = torch.ones_like(x[:, :1])
        box = torch.ones(1, 1, 3, 3, dtype=x.dtype)
        sums = F.conv2d(x.flatten(0, 1)[:, None], box, padding=1).view_as(x)
        return sums / F.conv2d(ones, box, padding=1)

    def largest(x: Tensor, stride: int, pad: int) -> Tensor:
        return F.max_pool2d(F.pad(x, (pad,) * 4, value=-torch.inf), 3, stride=stride)

    def both(x: Tensor, block: str, *, first: str, second: str) -> Tensor:
        return torch.cat([same(x, f"{block}.{first}"), same(x, f"{block}.{second}")], 1)

    def joined(name: str, *parts: Tensor) -> Tensor:
        lanes[name] = [part.shape[1] for part in parts]
        return torch.cat(parts, 1)

    x = (levels.double() - 128) / 128
    x = conv(x, "Conv2d_1a_3x3", stride=2)
    x = conv(x, "Conv2d_2a_3x3")
    x = largest(same(x, "Conv2d_2b_3x3"), 2, 0)
    x = largest(conv(same(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 2, 0)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = joined(
            block,
            chain(x, block, "branch1x1"),
            chain(x, block, "branch5x5_1", "branch5x5_2"),
            chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            chain(mean(x), block, "branch_pool"),
        )
    double = chain(x, "Mixed_6a", "branch3x3dbl_1", "branch3x3dbl_2")
    x = joined(
        "Mixed_6a",
        conv(x, "Mixed_6a.branch3x3", stride=2),
        conv(double, "Mixed_6a.branch3x3dbl_3", stride=2),
        largest(x, 2, 0),
    )
    for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = joined(
            block,
            chain(x, block, "branch1x1"),
            chain(x, block, *(f"branch7x7_{i}" for i in (1, 2, 3))),
            chain(x, block, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            chain(mean(x), block, "branch_pool"),
        )
    x = joined(
        "Mixed_7a",
        conv(chain(x, "Mixed_7a", "branch3x3_1"), "Mixed_7a.branch3x3_2", stride=2),
        conv(chain(x, "Mixed_7a", *(f"branch7x7x3_{i}" for i in (1, 2, 3))), "Mixed_7a.branch7x7x3_4", stride=2),
        largest(x, 2, 0),
    )
    for block, pool in (("Mixed_7b", mean), ("Mixed_7c", lambda x: largest(x, 1, 1))):
        double = chain(x, block, "branch3x3dbl_1", "branch3x3dbl_2")
        x = joined(
            block,
            chain(x, block, "branch1x1"),
            both(chain(x, block, "branch3x3_1"), block, first="branch3x3_2a", second="branch3x3_2b"),
            both(double, block, first="branch3x3dbl_3a", second="branch3x3dbl_3b"),
            chain(pool(x), block, "branch_pool"),
        )
    features = x.mean((2, 3))
    return features, features @ table["fc.weight"].T


def test_the_arithmetic(weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    levels = torch.rand(1, 3, 91, 91, generator=torch.Generator().manual_seed(1)) * 255
    monkeypatch.setattr("darkroom.nn.inception.resized", lambda levels: levels)  # smaller pictures, the same layers
    lanes: dict[str, list[int]] = {}
    expected = again(levels, {name: value.double() for name, value in weights.items()}, lanes=lanes)
    with torch.no_grad():
        found = inception(weights, where="here")(levels)
    assert float(expected[0].std()) > 0.1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))
    assert [sum(lanes[name]) for name in ("Mixed_5b", "Mixed_5d", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7c")] == [
        256,
        288,
        768,
        768,
        1280,
        2048,
    ]


def test_as_many_parameters_as_published() -> None:
    network = Inception()
    assert sum(each.numel() for each in network.parameters()) == TORCHVISION + MORE_CLASSES == 23_850_960
    assert network.fc.weight.shape == (CLASSES, 2048)


def test_pictures_are_made_larger_as_tensorflow_did() -> None:
    line = torch.tensor([0.0, 10.0, 20.0, 30.0]).expand(1, 1, 4, 4)
    assert resized(line, 8)[0, 0, 0].tolist() == [0, 5, 10, 15, 20, 25, 30, 30]  # not centred, the last repeated
    assert resized(line, 2)[0, 0, 0].tolist() == [0, 20]  # nothing is averaged
    assert torch.equal(resized(line, 4), line)


def test_pictures_of_other_shapes_against_a_loop() -> None:
    levels = torch.rand(2, 3, 5, 9, generator=torch.Generator().manual_seed(2)) * 255
    expected = np.zeros((2, 3, 7, 7))
    source = levels.double().numpy()
    for i in range(7):
        for j in range(7):
            y, x = i * 5 / 7, j * 9 / 7
            top, left = int(y), int(x)
            down, right = min(top + 1, 4), min(left + 1, 8)
            a = source[..., top, left] * (1 - x + left) + source[..., top, right] * (x - left)
            b = source[..., down, left] * (1 - x + left) + source[..., down, right] * (x - left)
            expected[..., i, j] = a * (1 - y + top) + b * (y - top)
    np.testing.assert_allclose(resized(levels, 7).numpy(), expected, atol=1e-3)


def test_averages_count_no_padding_and_the_last_block_takes_the_largest() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3) - 4
    assert pooled(x, "mean")[0, 0].tolist() == [[-2, -1.5, -1], [-0.5, 0, 0.5], [1, 1.5, 2]]
    assert pooled(x, "largest")[0, 0, 0].tolist() == [0, 1, 1]
    assert pooled(x, "halve").tolist() == [[[[4]]]]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda table: table.pop("Mixed_7c.branch_pool.bn.bias"), "'Mixed_7c.branch_pool.bn.bias' is missing"),
        (lambda table: table.update({"fc.weight": torch.zeros(1000, 2048)}), r"fc.weight has shape \(1000, 2048\)"),
    ],
)
def test_other_weights_are_refused(
    weights: dict[str, Tensor], spoil: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    table = dict(weights)
    spoil(table)
    with pytest.raises(ModelFileError, match=sentence):
        inception(table, where="here")
