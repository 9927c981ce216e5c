"""The page of a run: whole in itself, safe whatever the data says, and true to the logs."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from darkroom.core.pictures import contact_sheet, save_png
from darkroom.core.record import write_json, write_lines, write_yaml
from darkroom.metrics.neighbours import Memorisation
from darkroom.recipes.read import recipe
from darkroom.recipes.report.commands import Command
from darkroom.recipes.report.look_back import LookBack, Neighbour, Sample
from darkroom.recipes.report.page import Data, duration, this_machine, write_page

HOSTILE = "<script>alert(\"1\")</script> & 'quoted' <img src=x onerror=alert(2)>"
VOID = {"meta", "img"}
TEXT = "tiny-text"


class Reader(HTMLParser):
    """Tags must balance; keeps elements, their attributes, and the text of each."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(text for tag, text in self.texts if tag != "style"))


def read_page(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def plain(colour: str, *, mode: str = "RGB", side: int = 32) -> Image.Image:
    return Image.new("RGB", (side, side), colour).convert(mode)


def begun(folder: Path, name: str, *overrides: str, steps: Sequence[int] = (), finished: bool = True) -> Path:
    """A run folder as training leaves it: recipe, logs with a loss of 1 / step, reports, sheets."""
    made = recipe(name, overrides=["data.source=shapes", *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(folder / "recipe.yaml", made.plain())
    stages = ["first_stage", *(["denoiser"] if made.denoiser else [])]
    for stage in stages if steps else []:
        (folder / stage).mkdir()
        lines = [{"step": n, "loss": 1 / n, "pictures_per_second": 20, "seconds": 2.0 * n} for n in steps]
        write_lines(folder / stage / "log.jsonl", [*lines, *_looked(stage, steps)])
    if finished:
        (folder / "model.safetensors").touch()
        first = {"psnr": 25.5, "bicubic_psnr": 20.25, "distance": 0.0312, "bicubic_distance": 0.0663, "pictures": 40}
        write_json(folder / "first_stage" / "report.json", first)
        save_png(_sheet(), folder / "first_stage" / "reconstructions.png")
    if finished and made.denoiser:
        write_json(folder / "denoiser" / "report.json", {"step": steps[-1], "validation_loss": 0.5})
        save_png(contact_sheet([plain("teal")] * 3), folder / "denoiser" / "samples.png")
    return folder


def _looked(stage: str, steps: Sequence[int]) -> list[dict[str, Any]]:
    key = "test_psnr" if stage == "first_stage" else "validation_loss"
    values = {"test_psnr": (20.0, 25.5), "validation_loss": (0.4, 0.5)}[key]
    return [{"step": step, key: value} for step, value in zip((steps[len(steps) // 2], steps[-1]), values, strict=True)]


def _sheet() -> Image.Image:
    return contact_sheet([plain(each) for each in ("red", "green", "blue", "pink", "lime", "navy")], columns=3)


def memory(copied: Sequence[bool], **changes: Any) -> Memorisation:
    values: dict[str, Any] = {
        "closeness": tuple(0.05 if each else 0.8 for each in copied),
        "limit": 0.25,
        "chance": 0.008,
        "copied": tuple(copied),
        "unseen": 242,
        "unseen_copied": 1,
        "duplicates": 0,
        "known": 64,
        "found": 63,
        "distance": 0.18,
        "unseen_distance": 0.16,
        "nearer": 0.36,
    }
    return Memorisation(**(values | changes))


def looked(copied: Sequence[bool], *, mode: str = "RGB", asked: str = "a red star", **changes: Any) -> LookBack:
    found = memory(copied, **changes)
    near = tuple(Neighbour(plain("gray", mode=mode), f"{asked}-{place}.png", 0.1 * place, asked) for place in (1, 2, 3))
    samples = [
        Sample(plain("teal", mode=mode), prompt=asked, neighbours=near, closeness=found.closeness[place], copied=each)
        for place, each in enumerate(copied)
    ]
    return LookBack(tuple(samples), found, "ddim, 50 steps, seed 0", 3323, 3323)


def data(*, left_out: Sequence[tuple[str, str]] = (), **more: Any) -> Data:
    extent = {"min": 28, "median": 64, "max": 1024}
    told = {"name": "my <pictures>", "count": 3323, "fields": ["caption"], "width": extent, "height": extent, **more}
    return Data(told, test=242, left_out=left_out)


@pytest.fixture
def text_run(tmp_path: Path) -> Path:
    return begun(tmp_path / "runs" / "text", TEXT, steps=(1, 50, 100, 150, 200))


def test_a_whole_page_needs_nothing_else(text_run: Path) -> None:
    path = write_page(text_run, look=looked([False] * 4), data=data(), machine="2 CPU cores")
    assert path == text_run / "report.html"
    page = path.read_text(encoding="utf-8")
    read = Reader(page)
    assert not re.search(r"https?:|//|@import|url\(", re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page))
    assert not read.of("script")
    assert not read.of("link")
    assert {image["src"].split(",")[0] for image in read.of("img") if image["src"]} == {"data:image/png;base64"}
    assert all(image["alt"] for image in read.of("img"))
    assert len(read.of("img")) == 4 + 4 * 4 + 6  # samples, cards, reconstructions
    assert {"lang": "en"} in read.of("html")
    assert "prefers-color-scheme: dark" in page
    for title in ("Samples", "Nearest training pictures", "Reconstructions", "Training", "Data", "Recipe"):
        assert ("h2", title) in read.texts
    for said in ("25.50 dB", "bicubic 20.25 dB", "0.0312", "0.0663", "3,323", "On 2 CPU cores.", "28 to 1,024"):
        assert said in read.words


def test_whatever_the_data_says_is_text(text_run: Path) -> None:
    path = write_page(
        text_run,
        look=looked([True, False], asked=HOSTILE),
        data=data(left_out=[(HOSTILE, HOSTILE), ("bytes\udcff.png", "no picture")], classes={HOSTILE: 3}),
        commands=[Command(HOSTILE, HOSTILE)],
        machine=HOSTILE,
    )
    read = read_page(path)
    assert not read.of("script")
    assert not any(key.startswith("on") for _, attributes in read.elements for key in attributes)
    assert read.words.count(HOSTILE) > 10
    assert sum(image["alt"] == f"Sample: {HOSTILE}" for image in read.of("img")) == 4
    assert "bytes?.png" in read.words


def test_a_plot_shows_the_log(text_run: Path) -> None:
    page = write_page(text_run).read_text(encoding="utf-8")
    low, high = map(float, re.findall(r'data-y="([^"]*)"', page)[0].split())
    left, top, right, bottom = map(float, re.findall(r'data-frame="([^"]*)"', page)[0].split())
    (raw,) = re.findall(r'<polyline class="line faint" points="([^"]*)" data-name="each step">', page)[:1]
    found = [tuple(map(float, pair.split(","))) for pair in raw.split()]
    steps = [200 * (x - left) / (right - left) for x, _ in found]
    losses = [low * (high / low) ** ((bottom - y) / (bottom - top)) for _, y in found]
    assert steps == pytest.approx([1, 50, 100, 150, 200], abs=0.1)
    assert losses == pytest.approx([1, 1 / 50, 1 / 100, 1 / 150, 1 / 200], rel=0.01)


def test_a_validation_loss_that_has_risen_is_told(text_run: Path) -> None:
    words = read_page(write_page(text_run)).words
    assert "The validation loss was lowest at step 100 (0.4) and has risen since, to 0.5, by 25 %" in words
    assert "PSNR of test pictures was" not in words
    lines = [{"step": step, "validation_loss": value} for step, value in ((100, 0.5), (200, 0.4))]
    write_lines(text_run / "denoiser" / "log.jsonl", lines)
    assert "risen" not in read_page(write_page(text_run)).words


class TestMemorisation:
    def test_copies_are_a_warning_on_top_and_stand_first(self, text_run: Path) -> None:
        read = read_page(write_page(text_run, look=looked([False, True, False, True])))
        assert [each["class"] for each in read.of("p") if each.get("role") == "note"] == ["warning"]
        assert "2 of 4 samples are near copies of training pictures" in read.words
        cards = [each["class"] for each in read.of("article")]
        assert cards == ["card copied"] * 2 + ["card"] * 2
        assert sum(text == "near copy" for _, text in read.texts) == 2
        assert "It copies." in read.words

    def test_one_copy_may_be_chance_and_is_said_below(self, text_run: Path) -> None:
        read = read_page(write_page(text_run, look=looked([True] + [False] * 15)))
        assert not [each for each in read.of("p") if each.get("class") == "warning"]
        assert "1 of 16 samples is a near copy" in read.words
        assert "it may be chance (12 %)" in read.words

    def test_none_is_said_plainly(self, text_run: Path) -> None:
        read = read_page(write_page(text_run, look=looked([False] * 3)))
        assert "None of 3 samples is a near copy of a training picture." in read.words
        assert not [each for each in read.of("p") if each.get("class") == "warning"]
        assert "nearly blind" not in read.words

    def test_where_unseen_pictures_look_like_copies_too_it_cannot_be_told(self, text_run: Path) -> None:
        read = read_page(write_page(text_run, look=looked([True, False, False], unseen_copied=120, duplicates=110)))
        assert "1 of 3 samples is a near copy" in read.words
        assert "cannot be told whether the model copies" in read.words
        assert "110 of 242 test pictures are themselves near duplicates" in read.words
        assert not [each for each in read.of("p") if each.get("class") == "warning"]

    def test_what_weakens_the_verdict_is_said(self, text_run: Path) -> None:
        look = looked([False], found=3, unseen=9)
        few = LookBack(look.samples, look.memorisation, look.drawn, 20_000, 1_000_000)
        words = read_page(write_page(text_run, look=few)).words
        for said in ("it finds 3.", "Only 9 unseen pictures", "20,000 of 1,000,000 training pictures were compared"):
            assert said in words


class TestCommands:
    def test_a_prompt_is_quoted(self, text_run: Path) -> None:
        path = write_page(text_run, look=looked([False], asked="it's a $star"), commands=[Command("Go on", "train on")])
        codes = [text for tag, text in read_page(path).texts if tag == "code"]
        assert codes[0].startswith(f"""darkroom sample 'it'"'"'s a $star' --model {text_run} --count 16""")
        assert codes[1] == "train on"
        compile(codes[2], "page", "exec")
        assert """model.sample("it's a $star", count=4, seed=0)""" in codes[2]

    def test_a_label_or_nothing(self, tmp_path: Path) -> None:
        labelled = begun(tmp_path / "class", "tiny-class", steps=(1, 2))
        codes = _codes(write_page(labelled, data=data(classes={"big cat": 3, "dog": 9})))
        assert "--label='big cat'" in codes[0]
        assert "label='big cat'" in codes[1]
        alone = begun(tmp_path / "alone", "tiny-uncond", steps=(1, 2))
        assert _codes(write_page(alone))[0] == (
            f"darkroom sample --model {alone} --count 16 --seed 0 --grid --out pictures"
        )

    def test_a_first_stage_is_reconstructed_with(self, tmp_path: Path) -> None:
        run = begun(tmp_path / "vq", "tiny-vq", "denoiser=null", steps=(1, 2))
        path = write_page(run)
        assert _codes(path)[0] == f"darkroom reconstruct {run} my-pictures --grid"
        assert "Samples" not in read_page(path).words


def _codes(path: Path) -> list[str]:
    return [text for tag, text in read_page(path).texts if tag == "code"]


class TestWhatIsNotThere:
    def test_a_run_that_has_only_been_claimed(self, tmp_path: Path) -> None:
        words = read_page(write_page(begun(tmp_path / "run", TEXT, finished=False))).words
        assert "Not finished: the first stage stands at step 0" in words
        assert "Nothing is logged yet." in words
        assert "darkroom sample" not in words

    def test_a_run_in_its_first_stage(self, tmp_path: Path) -> None:
        run = begun(tmp_path / "run", TEXT, "first_stage.train.steps=500", steps=(1, 120), finished=False)
        read = read_page(write_page(run, commands=[Command("Go on", "darkroom train x")]))
        assert "Not finished: the first stage stands at step 120 of 500." in read.words
        assert "darkroom train x" in read.words
        assert len(read.of("svg")) == 3

    def test_previews_stand_for_samples(self, text_run: Path) -> None:
        read = read_page(write_page(text_run))
        assert sum(image["alt"] == "Sample" for image in read.of("img")) == 3  # the sheet's fourth place is empty
        assert "Samples of this model were not compared" in read.words

    def test_no_picture_large_enough_for_the_judge(self, text_run: Path) -> None:
        write_json(text_run / "first_stage" / "report.json", {"psnr": 25.5, "bicubic_psnr": 20.25, "pictures": 3})
        words = read_page(write_page(text_run)).words
        assert "PSNR" in words
        assert "feature distance (lower" not in words

    def test_a_sheet_of_another_size_is_shown_whole(self, text_run: Path) -> None:
        save_png(plain("teal", side=77), text_run / "first_stage" / "reconstructions.png")
        read = read_page(write_page(text_run))
        assert sum("above their reconstructions" in (image["alt"] or "") for image in read.of("img")) == 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_pictures_of_every_kind(text_run: Path, mode: str) -> None:
    assert len(read_page(write_page(text_run, look=looked([False], mode=mode))).of("img")) == 1 + 4 + 6


def test_large_pictures_are_made_smaller(text_run: Path) -> None:
    noise = Image.effect_noise((1024, 512), 90).convert("RGB")
    look = LookBack((Sample(noise, prompt="a"),), memory([False]), "ddim", 1, 1)
    path = write_page(text_run, look=look)
    first = read_page(path).of("img")[0]
    assert (first["width"], first["height"]) == ("256", "128")
    assert str(first["src"]).startswith("data:image/jpeg")
    assert path.stat().st_size < 200_000


def test_thousands_of_classes_and_of_pictures_left_out(text_run: Path) -> None:
    left_out = [(f"folder/{number}.jpg", "no picture" if number % 3 else f"odd {number}") for number in range(3000)]
    path = write_page(text_run, data=data(left_out=left_out, classes={f"class {n}": n for n in range(2000)}))
    read = read_page(path)
    listed = [text for tag, text in read.texts if tag == "b"]
    assert {f"folder/{number}.jpg" for number in range(3000)} <= set(listed)
    for said in ("2,000 classes", "the other 1,976", "3,000 left out", "no picture 2,000", "other reasons 991"):
        assert said in read.words
    assert read.words.index("class 1999") < read.words.index("class 1998")


def test_a_long_log_makes_no_long_page(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", TEXT, steps=range(1, 50_001))
    assert write_page(run).stat().st_size < 150_000


def test_a_page_is_written_anew(text_run: Path) -> None:
    first = write_page(text_run, data=data()).read_bytes()
    write_page(text_run)
    assert write_page(text_run, data=data()).read_bytes() == first
    assert not list(text_run.glob(".report*"))


def test_times_and_machines_in_words() -> None:
    said = {5: "5 s", 89: "89 s", 600: "10 min", 5460: "1 h 31 min", 90_000: "25 h 00 min"}
    assert {seconds: duration(seconds) for seconds in said} == said
    assert re.fullmatch(r"\d+ CPU cores, \w+ on \w+, PyTorch [\d.+a-z]+", this_machine(torch.device("cpu")))
