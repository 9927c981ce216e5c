"""Which requests may be drawn in one batch."""

import json
from typing import Final

from darkroom.tasks.request import EACH, ENDS, GROUPED, Request

OF_EACH: Final = frozenset({*EACH.values(), "count", "seed", "to_seed", "first", "at"})


def alike(request: Request) -> str:
    """A text that is equal for settled requests to one model that may share a batch.

    It tells size, steps, solver, guidance and all else that is one for a whole batch, and which fields are given.
    Prompts, negative prompts, pictures and seeds may differ. Sample k of a seed keeps its noise, so that what else is
    in the batch changes a picture by rounding only.
    """
    shared = request.model_dump(mode="json", exclude=set(OF_EACH))
    given = [name for name in (*GROUPED, *ENDS.values()) if getattr(request, name)]
    two_seeds = request.to_seed not in (None, request.seed)
    compared = sorted({each.size for each in request.guides})  # guides decide at which size pictures are compared
    return json.dumps([shared, given, two_seeds, compared], sort_keys=True)
