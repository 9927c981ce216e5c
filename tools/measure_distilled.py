"""Does a student of few steps obey as often as its teacher? The same captions and noise for both, read back.

    python tools/measure_distilled.py shapes runs/shapes-distilled-0 --steps 1 2 4 --count 512

The teacher draws by its own defaults. Captions are those of `darkroom evaluate TEACHER shapes`, of one, two and three
things; of two and three none that the teacher's training had.
"""

import argparse
import json
from collections.abc import Set as AbstractSet

from darkroom.cli.watch import Counter
from darkroom.evaluate.obedience import captions_trained_on, evaluate_obedience
from darkroom.tasks.load import load
from darkroom.tasks.model import Model


def obeyed(
    model: Model, options: argparse.Namespace, *, trained_on: AbstractSet[str], steps: int | None = None
) -> dict[int, float]:
    """The share of pictures that show what their captions say, by number of things."""
    report = evaluate_obedience(
        model,
        count=options.count,
        steps=steps,
        trained_on=trained_on,
        batch=options.batch,
        on_picture=Counter("pictures").show,
    )
    return {each.things: each.obeyed for each in report.by_things}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("teacher")
    parser.add_argument("student")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4], help="of the student")
    parser.add_argument("--count", type=int, default=512, help="captions of each kind")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="bfloat16")
    options = parser.parse_args()
    teacher, student = (
        load(each, device=options.device, dtype=options.precision) for each in (options.teacher, options.student)
    )
    known = captions_trained_on(teacher.card) or frozenset()
    whole = obeyed(teacher, options, trained_on=known)
    found = {"teacher": whole}
    print(f"{teacher.name}, its own {teacher.default('steps', 50)} steps: {_line(whole, whole)}", flush=True)
    for steps in options.steps:
        found[f"student, {steps} steps"] = few = obeyed(student, options, trained_on=known, steps=steps)
        print(f"{student.name}, {steps} steps: {_line(few, whole)}", flush=True)
    print(json.dumps({"count": options.count, **found}))


def _line(found: dict[int, float], whole: dict[int, float]) -> str:
    """Each share, and what it is of the teacher's."""
    return ", ".join(
        f"{things} things {share:.1%} ({share / whole[things]:.1%} of the teacher's)"
        if whole[things]
        else f"{things} things {share:.1%}"
        for things, share in found.items()
    )


if __name__ == "__main__":
    main()
