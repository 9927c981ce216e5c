"""`darkroom evaluate`: quality, with its protocol."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal, final

import typer

EXAMPLE = """
darkroom evaluate emoji my-pictures --first-stage
darkroom evaluate runs/shapes-text-0 shapes --count 512
darkroom evaluate runs/faces-0 faces --count 5000 --features inception
darkroom evaluate my-samples my-pictures --against evaluations/faces-0-on-faces
"""

Split = Literal["test", "train", "all"]


def run(
    model: Annotated[str, typer.Argument(help="Built-in name, model file, run folder, or a folder of pictures.")],
    data: Annotated[str, typer.Argument(help="A folder of pictures, shards, shapes or shapes:single.")],
    *,
    first_stage: Annotated[bool, typer.Option("--first-stage", help="Measure reconstructions.")] = False,
    features: Annotated[
        list[str] | None, typer.Option(help="Networks to see sets through: judge, inception, a folder of weights.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="A card to compare with; other protocols are refused.")] = None,
    split: Annotated[
        Split | None, typer.Option(help="Of the data; test without, all for folders and models that nothing steers.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures at most, or captions of each kind; 512 without, where a model draws."),
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side in pixels; the model's own without.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of noise, 0 without; with --first-stage of the split, the model's own without."),
    ] = None,
    solver: Annotated[str | None, typer.Option(help="Of drawing; the model's own without.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of drawing; the model's own without.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, help="Of drawing; the model's own without.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Of drawing; the model's own without.")] = None,
    match: Annotated[int | None, typer.Option(min=0, max=16, help="As of sample; the model's own without.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of holes to paint, instead of the model's own.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures taken together.")] = 16,
    config: Annotated[Path | None, typer.Option(help="YAML of an original checkpoint.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the card, or a .json file for the report.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (float32), float32, bfloat16, float16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Measure pictures, a model or a first stage, and write a card of the figures with all that they depend on.

    A folder of pictures, a model that nothing steers, or any model with --features: how near what is drawn comes to
    the data, as sets. With --first-stage: how much of pictures is kept, beside bicubic resizing. For a text model and
    `shapes`: 512 captions of one, two and three things each, drawn and read back. For other models: 512 test pictures
    asked for by their own words, classes, boxes, maps, or themselves made small or given holes. Run again with the same
    words, a set that was interrupted goes on.
    """
    from darkroom.cli.evaluate_reports import reconstructions, steered
    from darkroom.cli.evaluate_sets import Wanted, evaluate_pictures, evaluate_whole, holds_pictures
    from darkroom.cli.options import refuse
    from darkroom.evaluate.card import read_card

    begun = time.monotonic()
    sampling = {"solver": solver, "steps": steps, "eta": eta, "guidance": guidance, "match": match}
    other = None if against is None else (read_card(against), str(against))
    if out is not None:
        _check_writable(out)
    wanted = Wanted(
        data=data,
        features=tuple(features or ()),
        split=split,
        count=count,
        batch=batch,
        out=out,
        device=device,
        precision=precision,
        against=other,
    )
    answer = Answer(out, other, begun=begun, as_json=as_json)
    if first_stage:
        refuse({**sampling, "masks": masks, "features": features}, why="it is not for --first-stage")
        answer.of_report(
            reconstructions(
                model,
                data,
                split=split or "test",
                count=count,
                size=size,
                seed=seed,
                batch=batch,
                config=config,
                device=device,
                precision=precision,
            ),
        )
        return
    if holds_pictures(model):
        refuse({**sampling, "masks": masks, "config": config, "seed": seed}, why=f"{model} holds pictures")
        answer.of_set(evaluate_pictures(model, wanted, size=size))
        return
    refuse({"size": size}, why="it is for --first-stage and for folders of pictures")
    from darkroom.tasks.load import load

    loaded = load(model, config=config, device=device, dtype="float32" if precision == "auto" else precision)
    if "masked" not in loaded.fields:
        refuse({"masks": masks}, why=f"{loaded.name} does not inpaint")
    if not {"masked", "low_res"} & set(loaded.fields):
        refuse({"match": match}, why=f"{loaded.name} neither inpaints nor enlarges")
    sample = {"seed": seed or 0, **sampling}
    if features or not loaded.fields:
        answer.of_set(evaluate_whole(loaded, wanted, sample=sample, masks=masks))
        return
    refuse({"split": split}, why="it is for --first-stage and for sets, which --features asks for")
    answer.of_report(steered(loaded, data, count=count, batch=batch, masks=masks, sample=sample))


@final
class Answer:
    """Where figures go: to the terminal, as a table or as JSON, and to --out.

    other: beside which card, and its name · begun: when the command was, by `time.monotonic()`.
    """

    def __init__(self, out: Path | None, other: tuple[Any, str] | None, *, begun: float, as_json: bool) -> None:
        self._file = out if out is not None and _is_file(out) else None
        self._folder = None if self._file is not None else out
        self._other, self._begun, self._as_json = other, begun, as_json

    def of_report(self, said: Any) -> None:
        """A report, and its card where one is asked for; the first of several ranks speaks for all."""
        from darkroom.core.parallel import on_first

        on_first(lambda: self._of_report(said))

    def of_set(self, made: Any) -> None:
        """The card of a set, likewise."""
        from darkroom.core.parallel import on_first

        on_first(lambda: self._of_set(made))

    def _of_report(self, said: Any) -> None:
        from darkroom.evaluate.report_cards import card_of

        compared = ()
        if self._other is not None or self._folder is not None:
            card = card_of(said.report, compute=said.compute, begun=self._begun)
            compared = self._write(card, folder=self._folder, pictures={})
        self._say(said.text, said.report.plain(), compared=compared)

    def _of_set(self, made: Any) -> None:
        from darkroom.evaluate.card_page import lines

        compared = self._write(made.card, folder=made.folder, pictures=made.pictures)
        text = f"{lines(made.card)}\ncard: {made.folder / 'card.html'}"
        self._say(text, made.card.plain(), compared=compared)

    def _write(self, card: Any, *, folder: Path | None, pictures: dict[str, Any]) -> Any:
        """The card, also when the other one turns out not to compare."""
        from darkroom.evaluate.card import check_comparable, differences
        from darkroom.evaluate.card_page import compare, write_card

        other, where = self._other or (None, "")
        fits = other is not None and not differences(card.protocol, other.protocol)
        if folder is not None:
            write_card(folder, card, pictures=pictures, other=other if fits else None)
        if other is None:
            return ()
        check_comparable(card.protocol, other.protocol, where=where)
        return compare(card, other)

    def _say(self, text: str, values: dict[str, Any], *, compared: Any = ()) -> None:
        from darkroom.cli.answers import say
        from darkroom.core.record import writable_folder, write_json
        from darkroom.evaluate.card_page import beside

        if compared:
            values = {**values, "against": [each.plain() for each in compared]}
            text = f"{text}\n{beside(compared)}"
        say(text, values, as_json=self._as_json)
        if self._file is not None:
            write_json(writable_folder(self._file.parent) / self._file.name, values)


def _is_file(out: Path) -> bool:
    """Does --out name the JSON file of a report, and no folder?"""
    return out.suffix == ".json"


def _check_writable(out: Path) -> None:
    """`InputError` before anything is measured; what does not fit in other ways shall leave no folder behind."""
    from darkroom.core.errors import InputError
    from darkroom.core.record import writable_folder

    if out.is_file() and not _is_file(out):
        raise InputError(f"{out}: --out names a folder or a .json file, and this is a file")
    if out.is_dir() and _is_file(out):
        raise InputError(f"{out}: --out names the file of the report, and this is a folder")
    folder = out.parent if _is_file(out) else out
    writable_folder(next(each for each in (folder, *folder.parents) if each.exists()))
