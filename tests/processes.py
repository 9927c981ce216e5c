"""The command on two processes."""

import subprocess
import sys


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 --no-python darkroom ...`, whatever is installed under these names."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*launcher, sys.executable, "-m", "darkroom.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
