"""Cards: kept without loss, parsed strictly, compared field by field."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.core.errors import InputError
from darkroom.evaluate.card import Card, Figure, Network, Protocol, Reference, check_comparable, differences, read_card
from darkroom.evaluate.card_page import beside, compare, label, lines, markdown, page, write_card


def card(*, value: float = 3.5, name: str = "one", **protocol: Any) -> Card:
    return Card(
        subject={"kind": "model", "name": name},
        protocol=Protocol(
            **{
                "kind": "set",
                "count": 50,
                "sampling": {"seed": 0, "steps": 20, "size": [64, 64], "guidance": None},
                "reference": Reference(name="faces", split="all", pictures=80, hash="abc"),
                "networks": (Network(name="inception", hash="f00", preprocessing={"size": 299}),),
                **protocol,
            }
        ),
        figures=(
            Figure(
                measure="Fréchet distance", network="inception", value=value, low=value - 1, high=value + 1, count=50
            ),
            Figure(measure="precision", network="inception", value=0.5, count=50),
            Figure(measure="PSNR (dB)", value=30 + value, of="bicubic x4", count=50),
        ),
        notes=("a <note> & more",),
        time={"seconds": 1.0},
    )


def test_a_card_is_kept_without_loss(tmp_path: Path) -> None:
    one = card()
    write_card(tmp_path, one, pictures={}, other=None)
    assert read_card(tmp_path) == read_card(tmp_path / "card.json") == one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.html", "card.json", "card.md"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda values: values.update(figure=[]), "unknown key 'figure' (did you mean 'figures'?)"),
        (lambda values: values["protocol"].update(seed=1), "unknown key 'protocol.seed'"),
        (lambda values: values["protocol"].update(count=0), "'protocol.count'"),
        (lambda values: values["figures"][0].update(value=float("nan")), "'figures.0.value'"),
        (lambda values: values.pop("subject"), "'subject' is missing"),
        (lambda values: values.update(format=2), "a card of format 2, 1 is read"),
    ],
)
def test_other_cards_are_refused(change: Any, sentence: str, tmp_path: Path) -> None:
    values = card().plain()
    change(values)
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=re.escape(sentence)):
        read_card(tmp_path)


@pytest.mark.parametrize("content", [None, "", "[1]", "{"])
def test_what_is_no_card(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"x\.json") as caught:
        read_card(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"count": 60}, "count (50 here, 60 there)"),
        (
            {"sampling": {"seed": 0, "steps": 30, "size": [64, 64], "guidance": None}},
            "sampling.steps (20 here, 30 there)",
        ),
        ({"sampling": {"seed": 0, "steps": 20, "size": [64, 96], "guidance": None}}, "sampling.size.1"),
        ({"sampling": {"seed": 0, "steps": 20, "size": [64, 64], "guidance": 2}}, "guidance (nothing here, 2 there)"),
        ({"reference": Reference(name="faces", split="all", pictures=80, hash="abd")}, "reference.hash"),
        ({"networks": (Network(name="inception", hash="f01", preprocessing={"size": 299}),)}, "networks.0.hash"),
        ({"networks": (Network(name="inception", hash="f00", preprocessing={"size": 256}),)}, "preprocessing.size"),
        ({"networks": ()}, "networks"),
        ({"pictures": {"size": 32}}, "pictures.size (nothing here, 32 there)"),
        ({"statistics": {"neighbours": 5}}, "statistics.neighbours"),
        ({"kind": "obedience"}, "kind (set here, obedience there)"),
    ],
)
def test_the_field_that_differs_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=re.escape(field)) as caught:
        check_comparable(card().protocol, card(**changes).protocol, where="other.json")
    assert str(caught.value).startswith("other.json: measured by another protocol")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "two"},
        {"reference": Reference(name="renamed", split="train", pictures=80, hash="abc")},
        {"sampling": None},  # pictures that were given: how they were drawn is not known
    ],
)
def test_names_and_what_is_unknown_are_no_difference(changes: dict[str, Any]) -> None:
    assert differences(card().protocol, card(**changes).protocol) == ()


def test_what_a_terminal_would_obey_is_spelt_out(tmp_path: Path) -> None:
    """A card may come from a stranger."""
    values = card(pictures={"size": "\x1b]0;a\x07", "\x9b31m": 1}, kind="obedience").plain()
    (tmp_path / "card.json").write_text(json.dumps(values))
    with pytest.raises(InputError) as caught:
        check_comparable(card().protocol, read_card(tmp_path).protocol, where="card.json")
    assert str(caught.value).isprintable()
    assert "\\u001b]0;a" in str(caught.value)
    (tmp_path / "card.json").write_text(json.dumps({**values, "format": "\x1b[2J"}))
    with pytest.raises(InputError, match=re.escape("a card of format")) as caught:
        read_card(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a file without an end is not on this system")
def test_a_card_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="too large"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("measure", "better"),
    [
        ("l1", "this one"),
        ("lpips", "this one"),
        ("shuffled, 2 things", "this one"),
        ("feature distance", "this one"),
        ("LPIPS", "this one"),
        ("psnr std", "neither"),
        ("psnr", "the other"),
        ("obeyed, 2 things", "the other"),
        ("mean IoU of classes", "the other"),
    ],
)
def test_which_way_is_better_is_known_for_measures_of_reports_too(measure: str, better: str) -> None:
    one, other = (
        card().model_copy(update={"figures": (Figure(measure=measure, value=value, count=9),)}) for value in (0.2, 0.3)
    )
    assert [each.better for each in compare(one, other)] == [better]


def test_which_is_better_and_whether_that_may_be_chance() -> None:
    one, near, far = card(), card(value=4.0), card(value=9.0)
    assert [(each.better, each.apart) for each in compare(one, near)] == [
        ("this one", False),  # lower distance
        ("the same", None),
        ("the other", None),  # higher PSNR
    ]
    assert compare(one, far)[0].apart is True
    assert "this one is better, beyond chance" in beside(compare(one, far))
    assert "which may be chance" in beside(compare(one, near))
    assert compare(far, one)[0].better == "the other"


def test_the_page_stands_alone_and_escapes() -> None:
    one = card(name="<b>")
    found = page(
        one, compare(one, card(value=9.0)), against="other", pictures={"made": [Image.new("RGB", (8, 8))] * 70}
    )
    assert found.count("<img") == 1
    assert "data:image/png;base64," in found
    assert "64 made pictures" in found
    for told in ("FID", "2.5 to 4.5", "sampling.steps", "networks.0.preprocessing.size", "a &lt;note&gt; &amp; more"):
        assert told in found
    assert "<b>" not in found
    assert not re.search(r"(src|href)=\"(?!data:)", found)


def test_lines_and_markdown_tell_the_same() -> None:
    one = card()
    for text in (lines(one), markdown(one, compare(one, card(value=9.0)), against="other")):
        for told in ("FID", "3.5", "2.5 to 4.5", "precision, inception", "PSNR (dB), bicubic x4", "a <note> & more"):
            assert told in text
    assert [label(each) for each in one.figures] == ["FID", "precision, inception", "PSNR (dB), bicubic x4"]
