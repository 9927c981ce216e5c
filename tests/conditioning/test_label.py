"""Class labels: a token or a vector, a null class, and what does not fit."""

import pytest
import torch
from pydantic import ValidationError

from darkroom.conditioning.label import ClassConditioner, ClassSpec
from darkroom.core.errors import InputError


def made(**options) -> ClassConditioner:
    torch.manual_seed(0)
    return ClassConditioner(ClassSpec(**{"classes": 4, "width": 6, "null": 4, **options}))


@pytest.mark.parametrize(("port", "shape"), [("tokens", (3, 1, 6)), ("vector", (3, 6))])
def test_a_label_is_a_row_of_the_table(port: str, shape: tuple[int, ...]) -> None:
    conditioner = made(port=port)
    labels = torch.tensor([2, 0, 3])
    assert conditioner(labels).shape == shape
    assert torch.equal(conditioner(labels).reshape(3, 6), conditioner.embedding.weight[labels])


@pytest.mark.parametrize(("null", "rows"), [(4, 5), (0, 4), (3, 4), (None, 4)])
def test_the_null_class_may_come_after_the_last(null: int | None, rows: int) -> None:
    conditioner = made(null=null, drop=0.0)
    assert conditioner.embedding.num_embeddings == rows


@pytest.mark.parametrize("labels", [[5], [-1], [0, 1, 7]])
def test_labels_out_of_range_are_refused(labels: list[int]) -> None:
    with pytest.raises(InputError, match=r"labels must lie in 0\.\.4, "):
        made()(torch.tensor(labels))


def test_dropping_puts_the_null_class_where_chosen() -> None:
    dropped = made().drop(torch.tensor([0, 1, 2]), torch.tensor([True, False, True]))
    assert dropped.tolist() == [4, 1, 4]
    assert made(null=1).drop(torch.tensor([0, 3]), torch.tensor([True, True])).tolist() == [1, 1]


@pytest.mark.parametrize("port", ["tokens", "vector"])
def test_null_is_the_null_class_at_the_same_shape(port: str) -> None:
    conditioner = made(port=port)
    given = conditioner(torch.tensor([1, 2]))
    null = conditioner.null(given)
    assert null.shape == given.shape
    assert torch.equal(null, conditioner(torch.tensor([4, 4])))
    assert conditioner.null(given.bfloat16()).dtype == torch.bfloat16


def test_without_a_null_class_nothing_is_dropped() -> None:
    conditioner = made(null=None, drop=0.0)
    with pytest.raises(InputError, match="no null class"):
        conditioner.null(torch.zeros(1, 1, 6))
    with pytest.raises(InputError, match="no null class"):
        conditioner.drop(torch.tensor([0]), torch.tensor([True]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"null": None, "drop": 0.1}, "drop needs a null class"),
        ({"null": 5}, r"null must lie in 0\.\.4"),
        ({"null": -1}, r"null must lie in 0\.\.4"),
        ({"classes": 0}, "greater than 0"),
        ({"drop": 1.0}, "less than 1"),
        ({"port": "planes"}, "'tokens' or 'vector'"),
    ],
)
def test_specs_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        made(**options)
