"""Tokens: whom they let in, and how often wrong ones may be tried."""

import hashlib
import hmac
import ipaddress
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from darkroom.serve.limits import Refused

TRIES: Final = 10  # wrong tokens in a row
PAUSE: Final = 10.0  # seconds for each one more
SENDERS: Final = 4096  # that are remembered; the longest silent leave
NETWORK: Final = 64  # bits of an IPv6 address: whoever has one has all that begin with them
WRONG: Final = "this token opens nothing here; one that the server was started with is needed"
log = logging.getLogger("darkroom.serve")


def fitting(came: str, tokens: Sequence[str]) -> str | None:
    """The token that came, None where it is none of ours; compared in constant time."""
    fits = [each for each in tokens if hmac.compare_digest(came.encode(), each.encode())]
    return fits[0] if fits else None


def owner_of(token: str) -> str:
    """A name for whoever has a token, that does not tell it."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


@final
class Tries:
    """How often each sender may err: ten times in a row, then once in ten seconds.

    Whoever came in from there by a token goes on by it: behind a proxy all have one address, and nobody shall shut it
    for the others. clock: seconds. For any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    def let_in(self, address: str, token: str | None) -> str:
        """The owner of a token that came from an address, None for a wrong one; `Refused` with 401, or 429 for now."""
        with self._lock:
            sender, now = self._of(address), self._clock()
            wait = math.ceil(sender.free_at - now)
            owner = None if token is None else owner_of(token)
            if wait > 0 and owner not in sender.owners:
                sentence = f"too many wrong tokens came from your address; try again in {wait} seconds"
                raise Refused(sentence, status=429, code="wrong_tokens", after=wait)
            if owner is not None:
                sender.owners.add(owner)
                return owner
            sender.err(now)
            if sender.free_at > now:
                log.warning("wrong tokens came from %s, which is not listened to for %g seconds", address, PAUSE)
        raise Refused(WRONG, status=401, code="wrong_token")

    def _of(self, address: str) -> "_Sender":
        name = sender_of(address)
        found = self._senders.setdefault(name, _Sender())
        self._senders.move_to_end(name)
        while len(self._senders) > SENDERS:
            self._senders.popitem(last=False)
        return found


@final
@dataclass
class _Sender:
    """One sender. paid_at: when the pauses for all its errors are over · owners: who came in from there by a token."""

    paid_at: float = 0.0
    owners: set[str] = field(default_factory=set)

    @property
    def free_at(self) -> float:
        """When it may err again."""
        return self.paid_at - (TRIES - 1) * PAUSE

    def err(self, now: float) -> None:
        """Once more."""
        self.paid_at = max(self.paid_at, now) + PAUSE


def sender_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or the network of an IPv6 address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped or ipaddress.ip_network(f"{found}/{NETWORK}", strict=False))
