"""The settings that every tab shares, each a component that is empty where the model's own value counts."""

from dataclasses import dataclass
from typing import Any, Final, final

import gradio as gr

from darkroom.diffusion.solvers.choose import SOLVERS, TAKE_ETA
from darkroom.process.times import GRIDS
from darkroom.serve.limits import Limits
from darkroom.tasks.request import MOST_MOVES

OWN: Final = "the model's"  # of a choice that is left to the model


@final
@dataclass(frozen=True)
class Named:
    """A component and the name its value has on the page: a field of a request, or one the page makes a field of."""

    name: str
    component: Any


def whole(name: str, label: str, *, low: int = 0, high: int | None = None, info: str = "") -> Named:
    """A whole number, or nothing."""
    made = gr.Number(label=label, info=info or None, minimum=low, maximum=high, precision=0, elem_id=f"dr-{name}")
    return Named(name, _empty(made))


def real(name: str, label: str, *, low: float | None = 0, high: float | None = None, info: str = "") -> Named:
    """A number, or nothing."""
    made = gr.Number(label=label, info=info or None, minimum=low, maximum=high, step=0.1, elem_id=f"dr-{name}")
    return Named(name, _empty(made))


def _empty(number: Any) -> Any:
    """With nothing in it: of None Gradio's page makes 0."""
    number.value = ""
    return number


def settings(limits: Limits) -> list[Named]:
    """All of them, in accordions; to be called where they shall stand."""
    most = limits.count
    with gr.Row(elem_classes="dr-tight"):
        found = [
            Named("count", gr.Slider(1, most, min(4, most), step=1, label="Pictures", elem_id="dr-count")),
            whole("seed", "Seed", high=2**53 - 1, info="equal seeds, equal pictures; empty: a new one, which is told"),
        ]
    usual = _usual(limits)
    gr.HTML("<darkroom-guide></darkroom-guide>", padding=False)
    return [*found, *usual, *_more(), *_way()]


def _usual(limits: Limits) -> list[Named]:
    with gr.Accordion("Settings", open=False, elem_id="dr-settings"):
        gr.Markdown("What is empty is the model's own.", elem_classes="dr-hint")
        with gr.Row(elem_classes="dr-tight"):
            found = [
                Named("solver", gr.Dropdown([OWN, *SOLVERS], value=OWN, label="Solver", elem_id="dr-solver")),
                whole("steps", "Steps", low=1, high=limits.steps, info="more take longer and err less"),
                real("eta", "Eta", info=f"fresh noise in each step, 0 is none ({', '.join(TAKE_ETA)})"),
                real("guidance", "Guidance", low=None, info="how closely it does what it is told; 1 is as learnt"),
                whole("height", "Height", low=1, info="pixels"),
                whole("width", "Width", low=1, info="pixels"),
            ]
        negative = gr.Textbox("", label="Negative", info="What to steer away from", elem_id="dr-negative")
    return [*found, Named("negative", negative)]


def _more() -> list[Named]:
    with gr.Accordion("More", open=False, elem_id="dr-more"), gr.Row(elem_classes="dr-tight"):
        return [
            Named("times", gr.Dropdown([OWN, *GRIDS], value=OWN, label="Times of the steps", elem_id="dr-times")),
            real("guidance_low", "Guidance from", info="noise level, noise over picture"),
            real("guidance_high", "Guidance to", info="noise level; empty: any"),
            real("guidance_rescale", "Guidance rescale", high=1, info="against glaring colours, 0 to 1"),
            real("guide_weight", "Guide weight", high=1, info="how strongly a guide picture pulls, 0 to 1; empty: 1"),
            whole("window", "Window", low=1, info="pixels; larger pictures are drawn in squares of this side"),
            whole("first", "First picture", info="its number in the seed, from 0"),
            whole(
                "match",
                "Match",
                high=MOST_MOVES,
                info="moves towards what is known: the edge of a hole, a small picture",
            ),
        ]


def _way() -> list[Named]:
    with gr.Accordion("On the way to", open=False, elem_id="dr-way"):
        gr.Markdown("The pictures lead from what is asked for above to what stands here.", elem_classes="dr-hint")
        found = [Named("to", gr.Textbox("", label="Another prompt", elem_id="dr-to"))]
        with gr.Row(elem_classes="dr-tight"):
            found += [
                Named("to_label", gr.Textbox("", label="Another class", elem_id="dr-to_label")),
                whole("to_seed", "Another seed", high=2**53 - 1),
                real("at", "Only at", high=1, info="0 to 1: all of them at this place between"),
            ]
    return found
