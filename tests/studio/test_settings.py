"""Settings as the page is given them; no browser."""

import pytest

from darkroom.serve.limits import Limits
from darkroom.tasks.request import Settings


@pytest.mark.parametrize(("allowed", "value"), [(2, 2), (16, 4), (40, 4)])
def test_as_many_pictures_are_offered_as_are_allowed(allowed: int, value: int) -> None:
    gr = pytest.importorskip("gradio", reason="needs gradio, the extra [studio]")
    from darkroom.studio.settings import settings

    with gr.Blocks():
        made = {each.name: each.component for each in settings(Limits(count=allowed, steps=9))}
    assert (made["count"].maximum, made["count"].value) == (allowed, value)
    assert made["steps"].maximum == 9


def test_every_setting_of_a_request_can_be_made_there() -> None:
    gr = pytest.importorskip("gradio", reason="needs gradio, the extra [studio]")
    from darkroom.studio.settings import settings

    with gr.Blocks():
        made = {each.name for each in settings(Limits())}
    assert {*Settings.model_fields} - made == {"strength", "inverted"}  # of a picture that is varied, on its tab
