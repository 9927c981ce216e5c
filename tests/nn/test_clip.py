"""CLIP's text model beside that of transformers, and what makes it one."""

import pytest
import torch

from darkroom.checkpoint.diffusers_keys import clip_table
from darkroom.checkpoint.keymap import to_ours
from darkroom.conditioning.text import SequenceEncoder, SequenceEncoderSpec
from darkroom.nn.attention import attend
from stable import clip, pieces

SPEC = SequenceEncoderSpec(vocabulary=len(pieces()), length=77, width=24, depth=2, heads=3, head_width=8, family="clip")


@torch.no_grad()
def test_numbers_of_transformers() -> None:
    encoder = SequenceEncoder(SPEC)
    state = to_ours(clip_table(SPEC, inside=""), clip().state_dict())
    encoder.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in state.items()})
    for length in (77, 5, 1):
        ids = torch.randint(0, SPEC.vocabulary, (3, length), generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(encoder(ids), clip()(ids).last_hidden_state, rtol=0, atol=1e-5)


def test_nothing_looks_ahead() -> None:
    encoder = SequenceEncoder(SPEC).eval()
    ids = torch.randint(0, SPEC.vocabulary, (1, 9))
    other = ids.clone()
    other[:, 6:] = (other[:, 6:] + 1) % SPEC.vocabulary
    one, two = encoder(ids), encoder(other)
    torch.testing.assert_close(one[:, :6], two[:, :6])
    assert not torch.allclose(one[:, 6:], two[:, 6:])


@pytest.mark.parametrize("causal", [True, False])
def test_written_out_and_fused_attention_agree(causal: bool) -> None:
    q, k, v = (torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(3))
    written_out = attend(q, k=k, v=v, causal=causal)
    with torch.no_grad():
        fused = attend(q.detach(), k=k.detach(), v=v.detach(), causal=causal)
    torch.testing.assert_close(written_out, fused)
