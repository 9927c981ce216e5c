"""The page: tabs and settings of Gradio, custom elements where it has none; every click is answered in the browser.

No event here has a function in Python. What is asked for goes to the HTTP API like anybody's request, so its token,
its limits and its queue are those of the studio, and nothing that Gradio could read or keep is ever sent to it.
"""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import gradio as gr

from darkroom.serve.limits import Limits
from darkroom.serve.shelf import Offer
from darkroom.serve.views import model_view
from darkroom.studio.settings import Named, real, settings
from darkroom.studio.tabs import PARTS, TABS, Tab, facts, offered, others
from darkroom.tasks.fields import FIELDS

FONTS: Final = ("system-ui", "sans-serif")
MONO: Final = ("ui-monospace", "monospace")
LEGIBLE: Final = {  # where Gradio's greys are too pale to be read, and its white on amber too
    "body_text_color_subdued": "*neutral_600",
    "button_primary_text_color": "*neutral_950",
    "button_primary_text_color_dark": "*neutral_950",
    "button_primary_background_fill_dark": "*primary_500",
    "button_primary_background_fill_hover": "*primary_400",
    "button_primary_background_fill_hover_dark": "*primary_400",
}
SCALE: Final = "guidance_of_"  # before the field that a scale of guidance is for, as the page's script knows


def theme() -> gr.themes.Base:
    """Gradio's default with fonts that are there already, for its own are fetched from elsewhere."""
    made = gr.themes.Default(primary_hue="amber", secondary_hue="amber", font=FONTS, font_mono=MONO)
    return made.set(**LEGIBLE)


def page(offers: Mapping[str, Offer], *, limits: Limits, follow: bool = False, leave: str | None = None) -> gr.Blocks:
    """The studio for these models. follow: with a page on a training that is under way · leave: where to sign out."""
    chosen = [(tab, models) for tab in TABS if (models := offered(tab, tuple(offers.values())))]
    with gr.Blocks(title="Darkroom", analytics_enabled=False, fill_width=True) as blocks:
        tasks = {tab.key: [each.name for each in models] for tab, models in chosen}
        head = {"models": facts(tuple(offers.values())), "tabs": tasks, "leave": leave}
        gr.HTML(_element("darkroom-head", head), padding=False, elem_id="dr-head")
        _excused([name for name in offers if not any(name in names for names in tasks.values())])
        with gr.Tabs(elem_id="dr-pages") as pages:
            if chosen:
                with gr.Tab("Draw", id="draw"), gr.Row():
                    asked, draw, shared, tabs = _drawing(chosen, limits)
            with gr.Tab("Gallery", id="gallery"):
                gr.HTML("<darkroom-gallery></darkroom-gallery>", padding=False)
            if follow:
                with gr.Tab("Training", id="training"):
                    gr.HTML("<darkroom-follow></darkroom-follow>", padding=False)
        if chosen:
            _connect(asked, draw=draw, shared=shared, tabs=(pages, tabs))
    return blocks


def _drawing(
    chosen: Sequence[tuple[Tab, Sequence[Offer]]], limits: Limits
) -> tuple[dict[str, list[Named]], dict[str, gr.Button], list[Named], gr.Tabs]:
    """The page that draws: what each tab asks for and its button, what all share, and the tabs."""
    asked: dict[str, list[Named]] = {}
    draw: dict[str, gr.Button] = {}
    with gr.Column(scale=5, min_width=280), gr.Tabs(elem_id="dr-tabs") as tabs:
        for tab, models in chosen:
            with gr.Tab(tab.title, id=tab.key, render_children=True):
                asked[tab.key], draw[tab.key] = _asks(tab, models)
    with gr.Column(scale=4, min_width=280):
        gr.HTML("<darkroom-result></darkroom-result>", padding=False)
        shared = settings(limits)
    return asked, draw, shared, tabs


def _excused(names: Sequence[str]) -> None:
    """A sentence about models that have no tab, where there are some."""
    if names:
        words = f"Not on this page, for it cannot ask for what they are steered by: {', '.join(names)}."
        gr.HTML(f'<p class="dr-hint">{html.escape(words)}</p>', padding=False, elem_id="dr-excused")


def _asks(tab: Tab, models: Sequence[Offer]) -> tuple[list[Named], gr.Button]:
    """What a tab asks for: model, words, what its element asks for, and strength where that is the question."""
    fields = {field for each in models for field in each.outline.spec.fields}
    names = [each.name for each in models]
    gr.Markdown(tab.help, elem_classes="dr-hint")
    found = [Named("model", gr.Dropdown(names, value=names[0], label="Model", elem_id=tab.at("model")))]
    if "caption" in fields:
        lines = 3 if tab.key == "text" else 1
        info = "several: one a line; Shift and Enter draw" if lines > 1 else "Enter draws"
        made = gr.Textbox(
            "", label="Prompt", info=info, lines=lines, elem_id=tab.at("prompt"), placeholder=_example(models)
        )
        found.append(Named("prompt", made))
    if "label" in fields:
        found.append(Named("label", _classes(tab, models)))
    if tab.part is not None:
        gr.HTML(_element(tab.part, {"tab": tab.key}, tab=tab.key), padding=False)
    for field in others(tab, models):
        gr.HTML(_element(PARTS[field], {"tab": tab.key, "field": field}, tab=tab.key), padding=False)
    found += _scales(tab, models)
    if tab.key == "vary":
        found += _beginning(tab)
    return found, gr.Button("Draw", variant="primary", elem_id=tab.at("draw"))


def _classes(tab: Tab, models: Sequence[Offer]) -> gr.Dropdown:
    """Those of the first model; the page's script offers others when another model is chosen."""
    known = model_view(models[0], loaded=False)
    classes = list(known.classes) or [str(number) for number in range(known.counts.get("label", 0))]
    return gr.Dropdown(
        classes,
        value=classes[0] if tab.key == "class" and classes else None,
        label="Class",
        info="by name, or by number",
        allow_custom_value=True,
        elem_id=tab.at("label"),
    )


def _scales(tab: Tab, models: Sequence[Offer]) -> list[Named]:
    """A guidance of its own for each condition, where a model is guided by several."""
    guided = [model_view(each, loaded=False).guided for each in models]
    fields = list(dict.fromkeys(field for each in guided if len(each) > 1 for field in each))
    if not fields:
        return []
    words, info = "Guidance by the", "instead of one for all, in Settings"
    with gr.Row(elem_classes="dr-tight"):
        made = {
            each: real(f"{tab.key}-{SCALE}{each}", f"{words} {FIELDS[each]}", low=None, info=info) for each in fields
        }
    return [Named(f"{SCALE}{field}", each.component) for field, each in made.items()]


def _beginning(tab: Tab) -> list[Named]:
    """How a picture is varied."""
    strength = gr.Slider(
        0.05, 1, 0.6, step=0.05, label="Strength", info="how much is left open", elem_id=tab.at("strength")
    )
    inverted = gr.Checkbox(False, label="Begin with the noise that leads to the picture", elem_id=tab.at("inverted"))
    return [Named("strength", strength), Named("inverted", inverted)]


def _example(models: Sequence[Offer]) -> str | None:
    card = models[0].outline.card.get("sample", {})
    prompts = card.get("prompts") if isinstance(card, dict) else None
    return f"e.g. {prompts[0]}" if isinstance(prompts, list) and prompts else None


def _element(name: str, values: Mapping[str, Any], *, tab: str | None = None) -> str:
    """A custom element that is told these values. tab: that it asks for something on."""
    part = "" if tab is None else f' data-part="{html.escape(tab)}"'
    return f'<{name}{part} data-told="{html.escape(json.dumps(values))}"></{name}>'


def _connect(
    asked: Mapping[str, Sequence[Named]],
    *,
    draw: Mapping[str, gr.Button],
    shared: Sequence[Named],
    tabs: Sequence[gr.Tabs],
) -> None:
    """Buttons and choices, to the functions of the page's script that take and answer their values."""
    for key, named in asked.items():
        both = [*named, *shared]
        names = json.dumps([each.name for each in both])
        typed = [
            each.component.submit for each in named if each.name == "prompt"
        ]  # by Enter, with Shift in three lines
        for event in (draw[key].click, *typed):
            event(
                None,
                [each.component for each in both],
                None,
                js=f"(...values) => darkroom.draw({json.dumps(key)}, {names}, values)",
                api_visibility="private",
            )
        model, label = named[0].component, [each.component for each in named if each.name == "label"]
        choose = f"(...values) => darkroom.choose({json.dumps(key)}, ...values)"
        model.change(None, [model, *label], label, js=choose, queue=False, api_visibility="private")
    every = [(f"{key}.{each.name}", each.component) for key, named in asked.items() for each in named]
    every += [(each.name, each.component) for each in shared]
    restore = gr.Button("Restore", elem_id="dr-restore", elem_classes="dr-hidden")
    restore.click(
        None,
        [component for _, component in every],
        [*(component for _, component in every), *tabs],
        js=f"(...values) => darkroom.restored({json.dumps([name for name, _ in every])}, values)",
        api_visibility="private",
    )
