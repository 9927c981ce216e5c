"""The settings that every tab shares, each a component that is empty where the model's own value counts."""

from dataclasses import dataclass
from typing import Any, Final, final

import gradio as gr

from darkroom.diffusion.solvers.choose import SOLVERS
from darkroom.serve.limits import Limits

OWN: Final = "the model's"  # of a choice that is left to the model
TIMES: Final = (OWN, "trailing", "original", "original-quad")
MOST_MOVES: Final = 16


@final
@dataclass(frozen=True)
class Named:
    """A component and the name its value has on the page: a field of a request, or one the page makes a field of."""

    name: str
    component: Any


def _whole(name: str, label: str, *, low: int = 0, high: int | None = None, info: str = "") -> Named:
    made = gr.Number(None, label=label, info=info or None, minimum=low, maximum=high, precision=0, elem_id=f"dr-{name}")
    return Named(name, made)


def _real(name: str, label: str, *, high: float | None = None, step: float = 0.1, info: str = "") -> Named:
    made = gr.Number(None, label=label, info=info or None, minimum=0, maximum=high, step=step, elem_id=f"dr-{name}")
    return Named(name, made)


def settings(limits: Limits) -> list[Named]:
    """All of them, in accordions; to be called where they shall stand."""
    with gr.Row(elem_classes="dr-tight"):
        found = [
            Named("count", gr.Slider(1, min(16, limits.count), 4, step=1, label="Pictures", elem_id="dr-count")),
            _whole("seed", "Seed", high=2**53, info="empty: drawn, and told"),
        ]
    with gr.Accordion("Settings", open=False, elem_id="dr-settings"):
        gr.Markdown("What is empty is the model's own.", elem_classes="dr-hint")
        with gr.Row(elem_classes="dr-tight"):
            found += [
                Named("solver", gr.Dropdown([OWN, *SOLVERS], value=OWN, label="Solver", elem_id="dr-solver")),
                _whole("steps", "Steps", low=1, high=limits.steps),
                _real("eta", "Eta", info="noise of ddim, dpm++2m"),
                _real("guidance", "Guidance", info="1 is none"),
                _whole("height", "Height", low=1),
                _whole("width", "Width", low=1),
            ]
        negative = gr.Textbox("", label="Negative", info="What to steer away from", elem_id="dr-negative")
        found.append(Named("negative", negative))
    with gr.Accordion("More", open=False, elem_id="dr-more"), gr.Row(elem_classes="dr-tight"):
        found += [
            Named("times", gr.Dropdown(list(TIMES), value=OWN, label="Times", elem_id="dr-times")),
            _real("guidance_low", "Guide from", info="noise level"),
            _real("guidance_high", "Guide to", info="noise level"),
            _real("guidance_rescale", "Guidance rescale", high=1),
            _whole("window", "Window", low=1, info="side of windows"),
            _whole("first", "First", info="index in the seed"),
            _whole("match", "Match", high=MOST_MOVES, info="edge of a hole"),
            _real("guide_weight", "Guide weight", high=1),
        ]
    with gr.Accordion("On the way to", open=False, elem_id="dr-way"):
        found.append(Named("to", gr.Textbox("", label="Another prompt", elem_id="dr-to")))
        with gr.Row(elem_classes="dr-tight"):
            found += [
                Named("to_label", gr.Textbox("", label="Another class", elem_id="dr-to_label")),
                _whole("to_seed", "Another seed", high=2**53),
                _real("at", "Only at", high=1, info="0 to 1"),
            ]
    return found
