"""The verbs on real, tiny work: what appears on disk, what is said, what is refused."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from darkroom.cli.main import main
from warm import command

STAGES = (
    "first_stage.train.batch=2",
    "first_stage.train.warmup=1",
    "denoiser.train.steps=2",
    "denoiser.train.batch=2",
    "denoiser.train.warmup=1",
    "denoiser.sample.count=2",
    "denoiser.sample.steps=2",
)
TEXT = ("data.count=12", "first_stage.train.steps=2", *STAGES)
FOLDER = (
    "first_stage.train.steps=2",
    *STAGES,
    "first_stage.model.channels=16",
    "denoiser.network.channels=16",
    "denoiser.network.head_channels=16",
)
Say = Callable[..., tuple[int, str, str]]


def colours(folder: Path, names: Sequence[str]) -> Path:
    """A picture of 16 pixels in another shade for each name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * number % 256, 90, 200 - 20 * number % 200)).save(path)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the text miniature."""
    folder = tmp_path_factory.mktemp("runs") / "words"
    assert main(["train", "tiny-text", *TEXT, "--device", "cpu", "--out", str(folder)]) == 0
    return folder


def test_sampling_writes_numbered_pictures_and_a_sheet(say: Say, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "pictures"
    options = ("--model", run, "--count", 3, "--steps", 2, "--out", out)
    code, told, _ = say("sample", "a red circle", *options, "--grid", "--json")
    assert code == 0
    assert sorted(each.name for each in out.iterdir()) == ["0000.png", "0001.png", "0002.png", "grid.png"]
    found = json.loads(told)
    assert found["model"] == "words"
    assert [Path(each).name for each in found["pictures"][:3]] == ["0000.png", "0001.png", "0002.png"]
    with Image.open(out / "0001.png") as picture:
        assert picture.size == (32, 32)
        note = json.loads(picture.info["darkroom"])
    assert (note["prompt"], note["index"], note["steps"]) == ("a red circle", 1, 2)
    assert "3 pictures in" in say("sample", "a", *options)[1]


def test_prompts_from_a_file_and_another_size(say: Say, run: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n\n  two stars  \n")
    words = ("--prompts", tmp_path / "prompts.txt", "--size", "16x48", "--steps", 1, "--out", tmp_path)
    assert say("sample", "--model", run, *words)[0] == 0
    notes = [json.loads(Image.open(tmp_path / f"000{place}.png").info["darkroom"]) for place in range(2)]
    assert [note["prompt"] for note in notes] == ["a red circle", "two stars"]
    assert Image.open(tmp_path / "0000.png").size == (48, 16)


def test_like_repeats_a_picture_bit_for_bit(say: Say, run: Path, tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    options = ("--seed", 5, "--count", 2, "--batch", 1, "--steps", 3, "--guidance", 3, "--solver", "ddim", "--eta", 0.7)
    assert say("sample", "a star", "--model", run, "--negative", "a circle", *options, "--out", first)[0] == 0
    like = ("--like", first / "0001.png", "--model", run)
    assert say("sample", *like, "--out", again)[0] == 0
    assert (again / "0000.png").read_bytes() == (first / "0001.png").read_bytes()
    assert (first / "0000.png").read_bytes() != (first / "0001.png").read_bytes()
    for change in (("--seed", 0), ("--eta", 0), ("a ring", "--size", "16x16")):
        assert say("sample", *change, *like, "--out", other)[0] == 0, change
        assert (other / "0000.png").read_bytes() != (first / "0001.png").read_bytes(), change
    note = json.loads(Image.open(other / "0000.png").info["darkroom"])
    assert (note["prompt"], note["seed"], note["eta"]) == ("a ring", 5, 0.7)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("a", "--size", "33x32"), "size 33x32 does not fit this model: sides must be multiples of 8, the nearest"),
        (("a", "--size", "big"), "size 'big' does not fit; write HEIGHTxWIDTH"),
        (("a", "--size", "3x3x3"), "size '3x3x3' does not fit"),
        (("a", "--size", "²"), "size '²' does not fit"),
        (("a", "--solver", "eular"), "unknown solver 'eular' (did you mean 'euler'?)"),
        (("a", "--steps", "1001"), "more steps than times: 1001 steps asked for, the schedule has 1000 times"),
        (("a", "--times", "trialing"), "did you mean 'trailing'"),
        (("a", "--label", "star"), "takes no label; it is steered by a prompt"),
        (("a", "--negative", "b", "--guidance", "1"), "a negative prompt works through guidance"),
        ((), "needs a prompt"),
        (("a", "--device", "toaster"), "device 'toaster' is unknown"),
        (("a", "--precision", "int8"), "precision 'int8' is unknown"),
        (("a", "--engine", "egaer"), "engine 'egaer' is unknown (did you mean 'eager'?)"),
        (("a", "--count", "0"), "--count"),
    ],
)
def test_samples_that_cannot_be_drawn(
    refused: Callable[..., str], run: Path, tmp_path: Path, *, words: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused("sample", *words, "--model", run, "--out", tmp_path / "out")
    assert not list(tmp_path.rglob("*.png"))


def test_files_that_do_not_fit_a_sample(refused: Callable[..., str], run: Path, tmp_path: Path) -> None:
    def told(*words: object) -> str:
        return refused("sample", *words, "--steps", 1, "--out", tmp_path / "out")

    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    colours(tmp_path, ["foreign.png"])
    for number, note in enumerate(("nonsense", "[1]")):
        info = PngInfo()
        info.add_itxt("darkroom", note)
        Image.new("RGB", (4, 4)).save(tmp_path / f"note{number}.png", pnginfo=info)
    assert "absent: no such file, run folder or built-in model" in told("a", "--model", tmp_path / "absent")
    assert "no prompts in this file" in told("--model", run, "--prompts", tmp_path / "empty.txt")
    assert "cannot be read as a text file" in told("--model", run, "--prompts", tmp_path / "absent.txt")
    assert "cannot be read as a text file" in told("--model", run, "--prompts", tmp_path / "binary.txt")
    for name in ("foreign.png", "note0.png", "note1.png"):
        assert "does not say how it was made" in told("--like", tmp_path / name, "--model", run)
    assert "no such picture" in told("--like", tmp_path / "absent.png")
    assert "not a readable picture" in told("--like", tmp_path / "empty.txt")
    blocked = refused("sample", "a", "--model", run, "--out", tmp_path / "empty.txt" / "below")
    assert "cannot be written" in blocked


def test_a_plan_trains_nothing(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("train", "tiny-text", *TEXT, "--plan", "--device", "cpu", "--out", tmp_path / "run")
    code, answer, _ = say(*words, "--json")
    assert code == 0
    found = json.loads(answer)
    monkeypatch.setattr("darkroom.recipes.plan.plan_of", lambda *_, **__: found)  # measured once is enough
    words_of_it = say(*words)[1]
    assert "tiny-text: Text to image" in words_of_it
    assert "2 steps of 2 pictures, about" in words_of_it
    assert found["data"]["train"] == 12
    assert set(found["stages"]) == {"first_stage", "denoiser"}
    assert found["parameters"]["network"] > 0
    assert found["seconds"] > 0
    assert not list(tmp_path.iterdir())


def test_a_folder_of_class_folders_is_enough(say: Say, tmp_path: Path) -> None:
    folder = colours(tmp_path / "flowers", [f"{kind}/{place}.png" for kind in ("rose", "tulip") for place in range(5)])
    out = tmp_path / "run"
    code, told, _ = say("train", folder, *FOLDER, "--device", "cpu", "--out", out)
    first, onward = told.splitlines()
    assert (code, first) == (0, f"the run is in {out}")
    assert onward.startswith(f"draw pictures: darkroom sample --model {out} --label=rose --count 16")
    _, verb, *asked = shlex.split(onward.removeprefix("draw pictures: "))
    assert say(verb, *asked, "--count", 1, "--steps", 1, "--out", tmp_path / "onward")[0] == 0
    assert (out / "model.safetensors").is_file()
    assert (out / "denoiser" / "samples.png").is_file()
    found = json.loads(say("inspect", out / "model.safetensors", "--json")[1])
    assert json.loads(say("inspect", out, "--json")[1])["classes"] == found["classes"]
    assert (found["fields"], found["classes"], found["image_size"]) == (["label"], ["rose", "tulip"], 16)
    options = ("--model", out, "--steps", 2, "--out", tmp_path / "drawn")
    assert say("sample", "--label", "tulip", "--label", 0, *options)[0] == 0
    labels = [json.loads(Image.open(each).info["darkroom"])["label"] for each in sorted((tmp_path / "drawn").iterdir())]
    assert labels == ["tulip", "0"]
    code, _, complaint = say("sample", "--label", "tulpi", *options)
    assert (code, "did you mean 'tulip'" in complaint) == (2, True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("tiny-txt",), "unknown recipe 'tiny-txt' (did you mean 'tiny-text'?)"),
        (("nowhere_at_all",), "no such folder"),
        (("below/nowhere",), "below/nowhere: no such folder"),
        (("below/nowhere.yaml",), "there is no such recipe file"),
        (("tiny-text", "denoiser.train.stepz=3"), "'denoiser.train.stepz' (did you mean 'steps'?)"),
        (("tiny-text", "steps"), "'steps': an override is written key=value"),
        (("tiny-text", "size=32"), "unknown key 'size'; keys of a recipe are written whole: data.size\n"),
        (("tiny-text", "batch_size=8"), "whole: first_stage.train.batch, denoiser.train.batch\n"),
        (("tiny-text", "nothing_like_it=8"), "unknown key 'nothing_like_it'; minutes=60 fits, and keys"),
        (("tiny-text", "minutes=abc"), "'minutes=abc': minutes is a number above 0"),
        (("tiny-text", "minutes=-1"), "minutes is a number above 0"),
        (("tiny-text", "minutes=inf"), "minutes is a number above 0"),
        (("tiny-text", "first_stage.model.multipliers=[1,0]"), "should be greater than 0"),
        (("tiny-text", "denoiser.network.head_channels=64"), "attention heads do not divide the width 32"),
        (("tiny-text", "data.size=30"), "30"),
        (("tiny-text", "--device", "toaster"), "device 'toaster'"),
        (("tiny-text", "--json"), "--json does not fit: it is how --plan answers"),
        (("tiny-text", "--config", "x.yaml"), "--config does not fit: it belongs to a checkpoint"),
        (("tiny-text", "--stage", "first", "--best"), "--best does not fit: it keeps denoisers"),
        (("tiny-text", "data.license=2020-99-99"), "data.license=2020-99-99: not valid YAML"),
    ],
)
def test_runs_that_cannot_be_begun(
    refused: Callable[..., str], tmp_path: Path, *, words: tuple[str, ...], sentence: str
) -> None:
    small = () if "tiny-text" not in words else ("data.count=12",)
    assert sentence in refused("train", *words, *small, "--out", tmp_path / "run")


def test_folders_that_cannot_be_trained_on(refused: Callable[..., str], tmp_path: Path) -> None:
    empty, absent, good = (tmp_path / name for name in ("empty", "absent", "good"))
    empty.mkdir()
    for folder in (absent, good):
        colours(folder, [f"{place}.png" for place in range(4)])
    (absent / "metadata.jsonl").write_text('{"file_name": "0.png"}\n{"file_name": "gone.png"}\n')
    file = tmp_path / "blocked"
    file.write_text("")
    cases = [
        ((empty,), "no pictures here"),
        ((absent,), "only 1 picture (gone.png: no such file); at least 2 are needed"),
        ((good / "0.png",), "a folder of pictures is needed, this is a file"),
        ((good, "data=5"), "data"),
        ((good, "data.size=wide"), "'size': input should be a valid integer"),
        ((good, "data.size=20"), "size 20 does not fit: it must be a multiple of 16"),
        ((good, "data.sise=32"), "'sise' (did you mean 'size'?)"),
        ((good, "denoiser.network.chanels=8"), "(did you mean 'channels'?)"),
        ((tmp_path / "shards.tar",), "shards"),
    ]
    for words, sentence in cases:
        assert sentence in refused("train", *words, "--out", tmp_path / "run"), words
    assert "cannot be written" in refused("train", good, *FOLDER, "--out", file / "below")


def test_another_recipe_in_the_same_folder_is_refused(refused: Callable[..., str], run: Path) -> None:
    changed = [each.replace("denoiser.train.steps=2", "denoiser.train.steps=3") for each in TEXT]
    told = refused("train", "tiny-text", *changed, "--device", "cpu", "--out", run)
    assert "another recipe was begun here (denoiser.train.steps was 2 and is 3 now)" in told


def test_a_finished_run_trains_nothing_again(say: Say, run: Path) -> None:
    before = (run / "model.safetensors").stat().st_mtime_ns
    code, _, told = say("train", "tiny-text", *TEXT, "--device", "cpu", "--out", run)
    assert (code, "this run is finished" in told) == (0, True)
    assert (run / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_is_no_folder_of_pictures_and_goes_on_by_its_recipe(
    say: Say, refused: Callable[..., str], run: Path
) -> None:
    told = refused("train", run)
    assert f"{run}: a run and no pictures" in told
    _, verb, *words = told.split("`")[1].split()
    code, _, told = say(verb, *words, "--device", "cpu")
    assert (code, "this run is finished" in told) == (0, True)


def test_inspect_tells_what_things_are(say: Say, run: Path, tmp_path: Path) -> None:
    def told(*words: object) -> dict[str, object]:
        code, out, _ = say("inspect", *words, "--json")
        assert code == 0
        return json.loads(out)

    found = told(run)
    assert (found["kind"], found["recipe"], found["finished"]) == ("run", "tiny-text", True)
    assert found["stages"]["denoiser"]["step"] == 2
    model = told(run / "model.safetensors")
    for key in ("task", "fields", "image_size", "classes"):  # what to ask it for
        assert found[key] == model[key], key
    assert (model["kind"], model["fields"], model["factor"]) == ("model", ["caption"], 4)
    assert model["parameters"]["conditioner"] > 0
    alone = told(run / "first_stage" / "model.safetensors")
    assert (alone["kind"], alone["parameters"]) == ("first stage", {"first_stage": model["parameters"]["first_stage"]})
    (tmp_path / "only").mkdir()
    shutil.copy(run / "model.safetensors", tmp_path / "only")
    assert told(tmp_path / "only")["hash"] == model["hash"]
    data = told(colours(tmp_path / "data", [f"{name}.png" for name in "abcd"]))
    assert (data["kind"], data["count"], data["test"], data["fields"]) == ("data set", 3, 1, [])
    Image.new("RGB", (16, 24)).save(tmp_path / "high.png")
    picture = told(tmp_path / "high.png")
    assert (picture["kind"], picture["made_by"]) == ("picture", None)
    assert (picture["width"], picture["height"]) == (16, 24)
    assert say("sample", "a", "--model", run, "--steps", 1, "--out", tmp_path)[0] == 0
    assert told(tmp_path / "0000.png")["made_by"]["prompt"] == "a"
    assert "kind         run" in say("inspect", run)[1]
    note = PngInfo()
    note.add_text("darkroom", json.dumps({"model": "\x1b[2J", "prompt": "a\nb"}))
    Image.new("RGB", (4, 4)).save(tmp_path / "hostile.png", pnginfo=note)
    steering = say("inspect", tmp_path / "hostile.png")[1]
    assert "\x1b" not in steering
    assert r"\u001b[2J" in steering
    for text in ('{"loss": NaN}', "[" * 500 + "]" * 500):
        note = PngInfo()
        note.add_text("darkroom", text)
        Image.new("RGB", (4, 4)).save(tmp_path / "odd.png", pnginfo=note)
        assert told(tmp_path / "odd.png")["made_by"] in ({"loss": None}, None)
        assert say("inspect", tmp_path / "odd.png")[0] == 0
    boxes = {"images": [{"id": n, "file_name": f"{name}.png"} for n, name in enumerate("abcd")]}
    (tmp_path / "data" / "boxes.json").write_text(json.dumps(boxes))
    assert told(tmp_path / "data" / "boxes.json")["kind"] == "data set"
    both = told("shapes")  # a model, and pictures of the same name
    assert (both["kind"], both["data_set"]["kind"]) == ("model", "data set")
    words = say("inspect", "emoji")[1]
    assert "fields       caption\n" in words
    assert "\n  sample:\n    solver: dpm++2m\n" in words


def test_inspect_does_not_wait_for_the_compiler_of_torch() -> None:
    """It takes longer to import than all else together; arithmetic and draws on tensors without memory import it."""
    code = (
        "import sys; from darkroom.cli.inspect import look; from darkroom.tasks.find import built_in\n"
        "for name in built_in(): look(name)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_inspect_refuses_nonsense(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "broken.safetensors").write_bytes(b"hello")
    (tmp_path / "hello.ckpt").write_bytes(b"hello")
    (tmp_path / "alone.ckpt").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty").mkdir()
    assert "not a readable picture" in refused("inspect", tmp_path / "note.txt")
    assert "broken.safetensors" in refused("inspect", tmp_path / "broken.safetensors")
    assert "not a torch checkpoint" in refused("inspect", tmp_path / "hello.ckpt")
    assert "not a torch checkpoint" in refused("sample", "--model", tmp_path / "note.txt")
    assert "truncated or damaged" in refused("inspect", tmp_path / "alone.ckpt")
    assert "no pictures here" in refused("inspect", tmp_path / "empty")
    assert "no such file, folder or built-in model" in refused("inspect", tmp_path / "nothing")
    assert "no such file" in refused("inspect", tmp_path / "nothing.ckpt")
    assert "file name too long" in refused("inspect", "a" * 300)
    assert "--config does not fit" in refused("inspect", "shapes", "--config", tmp_path / "note.txt")
    assert "a COCO file is an object" in refused("inspect", _written(tmp_path / "list.json", "[]"))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_damaged_run_is_told(say: Say, run: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(run, tmp_path / "run"))
    (broken / "denoiser" / "report.json").write_text("{")
    (broken / "first_stage" / "log.jsonl").write_bytes(b"\xff\n3\n")
    (broken / "model.safetensors").write_bytes(b"{")
    code, told, _ = say("inspect", broken, "--json")
    found = json.loads(told)
    assert (code, list(found["stages"])) == (0, ["first_stage", "denoiser"])
    assert "denoiser: its report.json is damaged" in found["odd"]
    assert "model.safetensors" in found["odd"][-1]


def test_models_lists_what_is_built_in(
    say: Say, refused: Callable[..., str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkroom.tasks.find.built_in", lambda: {"words": run / "model.safetensors"})
    with monkeypatch.context() as patch:  # a list is of headers: nothing of the models is built for it
        patch.setattr("darkroom.recipes.describe.describe_model", None)
        code, told, _ = say("models")
    assert (code, told.split()[0]) == (0, "words")
    (entry,) = json.loads(say("models", "--json")[1])
    assert entry == json.loads(say("models", "words", "--json")[1])
    assert (entry["name"], entry["fields"]) == ("words", ["caption"])
    assert "\nfields       caption\n" in say("models", "words")[1]
    assert "no built-in model 'wrods' (did you mean 'words'?)" in refused("models", "wrods")
    assert json.loads(say("inspect", "words", "--json")[1])["fields"] == ["caption"]


def test_a_built_in_first_stage_is_listed_as_one(say: Say, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.tasks.find.built_in", lambda: {"alone": run / "first_stage" / "model.safetensors"})
    (entry,) = json.loads(say("models", "--json")[1])
    assert (entry["name"], entry["kind"], entry["fields"]) == ("alone", "first stage", [])
    assert entry["parameters"]["network"] == 0
    assert entry["flops"]["decode"] > 0


def test_ctrl_c_keeps_what_was_done(say: Say, tmp_path: Path) -> None:
    """The first Ctrl-C waits for the step under way; the same command goes on from there and ends."""
    words = ["train", "tiny-text", "data.count=12", "first_stage.train.steps=120", *STAGES, "--device", "cpu"]
    words += ["--out", str(tmp_path / "run")]
    state = tmp_path / "run" / "first_stage" / "state.pt"
    with command(words, folder=tmp_path / "said") as process:
        while "/120" not in process.complaints and process.alive:
            time.sleep(0.01)
        process.send(signal.SIGINT)
        assert (process.ended(), process.out) == (130, ""), process.complaints
    assert process.complaints.splitlines()[-1] == "darkroom: stopped; what was written is kept"
    assert state.is_file()
    assert not (tmp_path / "run" / "first_stage" / "model.safetensors").exists()
    reached = json.loads(say("inspect", tmp_path / "run", "--json")[1])
    assert reached["finished"] is False
    assert say(*words)[0] == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
