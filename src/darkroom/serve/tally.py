"""Votes counted: a share with its interval, whether chance explains it, and whom it leaves out."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final, NamedTuple, final

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
    voters = [_Voter.of(poll, voter, given=given) for voter, given in votes.items()]
    kept = [each for each in voters if each.attentive]
    everybody = [choice for each in voters for choice in each.choices]
    counted = [choice for each in kept for choice in each.choices]
    checks = [right for each in voters for right in each.checks]
    return Tally(
        voters=len(votes),
        attentive=len(kept),
        first=_share([choice.first for choice in counted]),
        everybody=_share([choice.first for choice in everybody]),
        left=_share([choice.left for choice in counted]),
        checks=len(checks),
        seen_through=sum(checks),
        seconds=median(choice.seconds for choice in everybody) if everybody else None,
    )


@final
class _Choice(NamedTuple):
    """Between two whole pictures. first: was it of the first kind · left: did it lie there."""

    first: bool
    left: bool
    seconds: float


@final
@dataclass(frozen=True)
class _Voter:
    """What one voter did. checks: was each seen through · attentive: see `Tally`."""

    choices: list[_Choice]
    checks: list[bool]
    attentive: bool

    @classmethod
    def of(cls, poll: Poll, voter: int, *, given: Mapping[int, Vote]) -> "_Voter":
        """By the sheet that the voter has; votes on what is not asked are none."""
        known = [(each, given[each.number]) for each in sheet(poll, voter=voter) if each.number in given]
        checks = [not each.chose(vote.side).startswith("broken") for each, vote in known if each.check]
        choices = [
            _Choice(each.chose(vote.side) == "first", vote.side == "left", vote.seconds)
            for each, vote in known
            if not each.check
        ]
        proven = bool(checks) and sum(checks) >= ATTENTIVE * len(checks)
        return cls(choices, checks, attentive=bool(known) and (proven or poll.checks == 0))


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
