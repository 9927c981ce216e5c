"""Settings as the page is given them; no browser."""

import pytest

from darkroom.serve.limits import Limits


@pytest.mark.parametrize(("allowed", "value"), [(2, 2), (16, 4), (40, 4)])
def test_as_many_pictures_are_offered_as_are_allowed(allowed: int, value: int) -> None:
    gr = pytest.importorskip("gradio", reason="needs gradio, the extra [studio]")
    from darkroom.studio.settings import settings

    with gr.Blocks():
        made = {each.name: each.component for each in settings(Limits(count=allowed, steps=9))}
    assert (made["count"].maximum, made["count"].value) == (allowed, value)
    assert made["steps"].maximum == 9
