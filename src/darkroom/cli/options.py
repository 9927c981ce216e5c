"""Options that do not go together are refused, never passed over in silence."""

from collections.abc import Mapping

from darkroom.core.errors import InputError


def refuse(options: Mapping[str, object], *, why: str) -> None:
    """`InputError` names the first of these options that was given; None and False were not."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise InputError(f"--{name.replace('_', '-')} does not fit: {why}")
