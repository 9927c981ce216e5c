"""Which requests may be drawn in one batch."""

import json
from typing import Final

from darkroom.tasks.request import GROUPED, Request

ENDS: Final = ("to_prompts", "to_labels")
OF_EACH: Final = frozenset({*GROUPED, *ENDS, "negatives", "count", "seed", "to_seed", "first", "at"})


def alike(request: Request) -> str:
    """What settled requests to one model must have in common to share a batch, as text: equal texts may.

    That is size, steps, solver, guidance and all else that is one for a whole batch, and which fields are given. Their
    prompts, pictures and seeds may differ, and a negative prompt is each its own. Sample k of a seed keeps its noise,
    so that what is drawn depends on the company by rounding only.
    """
    shared = request.model_dump(mode="json", exclude=set(OF_EACH))
    given = [name for name in (*GROUPED, *ENDS) if getattr(request, name)]
    two_seeds = request.to_seed not in (None, request.seed)
    compared = sorted({each.size for each in request.guides})  # guides decide at which size pictures are compared
    return json.dumps([shared, given, two_seeds, compared], sort_keys=True)
