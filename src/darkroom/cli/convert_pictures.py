"""`darkroom convert PICTURES FOLDER --to shards`: a data set as WebDataset shards."""

from pathlib import Path

import typer

SHARDS = "shards"


def into_shards(source: str, target: Path, *, samples: int, as_json: bool) -> None:
    """Write the shards, and say what was written and what was left out."""
    from darkroom.cli.answers import say_json
    from darkroom.cli.inspect import in_lines
    from darkroom.data.sources import open_data
    from darkroom.data.write_shards import write_shards

    splits = open_data(source)
    written = write_shards(splits, target, samples=samples)
    megabytes = round(sum(path.stat().st_size for path in written) / 1e6, 2)
    report = {
        "read": {"path": source, "kind": "data set", "fields": sorted(splits.train.fields)},
        "written": {"to": SHARDS, "paths": [str(path) for path in written], "megabytes": megabytes},
        "samples": len(splits.train) + len(splits.test),
        "left_out": [{"name": name, "reason": reason} for name, reason in splits.left_out],
    }
    if as_json:
        say_json(report)
        return
    made = f"{len(written)} shards with {report['samples']} samples in {target} ({megabytes} MB)"
    for line in in_lines({"path": source, "written": made}):
        typer.echo(line)
    for name, reason in splits.left_out:
        typer.echo(in_lines({"left_out": f"{name}: {reason}"})[0])
