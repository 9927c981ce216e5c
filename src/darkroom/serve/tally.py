"""Votes counted: a share with its interval, whether chance explains it, and whom it leaves out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, final

from darkroom.metrics.shares import coin_test, wilson
from darkroom.serve.ballot import Poll, sheet
from darkroom.serve.votes import Vote

ATTENTIVE: Final = 0.8  # of the checks that a voter met


@final
@dataclass(frozen=True)
class Share:
    """Of `count` choices, how many fell on `chosen`, 0..1 with the interval of 95 %, and a fair coin's probability.

    Choices of one voter, and those of one pair, depend on each other a little; interval and probability do not know.
    """

    chosen: int
    count: int
    share: float
    low: float
    high: float
    chance: float


@final
@dataclass(frozen=True)
class Tally:
    """What was found; None where there is no vote yet.

    voters: who came · attentive: who met a check and saw through `ATTENTIVE` of them at least (all who voted, where
    there are none) · first: choices of the first kind, of attentive voters · everybody: of all · left: choices of the
    left side, which sides would bias · checks, seen_through: of all voters · seconds: of a choice, the median.
    """

    voters: int
    attentive: int
    first: Share | None
    everybody: Share | None
    left: Share | None
    checks: int
    seen_through: int
    seconds: float | None

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def count(poll: Poll, votes: Mapping[int, Mapping[int, Vote]]) -> Tally:
    """All votes, by voter and question."""
    kept, everybody, left, seconds = list[bool](), list[bool](), list[bool](), list[float]()
    checks, seen_through, attentive = 0, 0, 0
    for voter, given in votes.items():
        questions = {each.number: each for each in sheet(poll, voter=voter)}
        known = [(questions[number], vote) for number, vote in given.items() if number in questions]
        right = [not each.chose(vote.side).startswith("broken") for each, vote in known if each.check]
        own = [each.chose(vote.side) == "first" for each, vote in known if not each.check]
        checks, seen_through = checks + len(right), seen_through + sum(right)
        everybody += own
        seconds += [vote.seconds for each, vote in known if not each.check]
        if known and (poll.checks == 0 or (right and sum(right) >= ATTENTIVE * len(right))):
            attentive += 1
            kept += own
            left += [vote.side == "left" for each, vote in known if not each.check]
    return Tally(
        voters=len(votes),
        attentive=attentive,
        first=_share(kept),
        everybody=_share(everybody),
        left=_share(left),
        checks=checks,
        seen_through=seen_through,
        seconds=median(seconds) if seconds else None,
    )


def told(poll: Poll, tally: Tally) -> str:
    """In words, for a terminal."""
    lines = [
        f"{poll.first} beside {poll.second}: {poll.question}",
        f"{tally.voters} voters, {tally.attentive} of them attentive: {tally.seen_through} of {tally.checks} checks "
        "were seen through",
    ]
    for words, share in (("attentive voters", tally.first), ("everybody", tally.everybody)):
        lines.append(f"{words + ':':<18}{_said(poll.first, share)}")
    lines.append(f"{'left side:':<18}{_said('the left one', tally.left)}")
    if tally.seconds is not None:
        lines.append(f"a choice took {tally.seconds:.1f} seconds, the median")
    if poll.real:
        lines.append(f"{poll.second} are real: 50 % is what {poll.first} would have if nobody could tell them apart")
    return "\n".join(lines)


def _said(what: str, share: Share | None) -> str:
    if share is None:
        return "no vote yet"
    return (
        f"{what} chosen {share.chosen} of {share.count} times, {100 * share.share:.1f} % ({100 * share.low:.1f} to "
        f"{100 * share.high:.1f}); a fair coin is as far from even with probability {share.chance:.2g}"
    )


def _share(answers: list[bool]) -> Share | None:
    if not answers:
        return None
    chosen, total = sum(answers), len(answers)
    low, high = wilson(chosen / total, count=total)
    return Share(chosen, total, chosen / total, low, high, coin_test(chosen, count=total))
