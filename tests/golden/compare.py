"""Compares this tree with an earlier commit: parameters, evidence, answers and imagined images of small learners.

    python -m tests.golden.compare --base=2835e8e

checks the base out into a temporary git worktree, runs `worker.py` in both trees on this machine, and prints the
number of arrays that are bitwise equal and the largest difference of the others. Exit code 1 if any array differs.
Arrays that depend on the closed form are left out: its features were replaced in 0.2.1.
The arrays of the base are kept in --cache for the next comparison. Takes about two minutes a tree on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from lifelong_cvae.deprecated import PARAMETER_KEYS, RESULT_KEYS

ROOT = Path(__file__).parents[2]
RESULT_KEYS_BY_OLD = {old: new for new, old in RESULT_KEYS.items()}


def run_worker(tree: Path, file: Path, cases: list[str]) -> None:
    """Runs the worker on the package in `tree`."""
    worker = Path(__file__).with_name("worker.py")
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    subprocess.run([sys.executable, "-P", str(worker), str(file), *cases], check=True, cwd=tree, env=environment)


def run_base(commit: str, file: Path, cases: list[str]) -> None:
    """Runs the worker on a commit, in a worktree that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], check=True, cwd=ROOT)
        try:
            run_worker(tree, file, cases)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], check=True, cwd=ROOT)


def canonical(name: str) -> str:
    """Name of an array under the keys of this version."""
    case, kind, *keys = name.split("/")
    if kind == "loss":
        return "/".join([case, kind, *(RESULT_KEYS_BY_OLD.get(key, key) for key in keys)])
    if kind == "params":
        return "/".join([case, kind, *(PARAMETER_KEYS.get(key, key) for key in keys)])
    return name


def depends_on_features(name: str) -> bool:
    """Whether an array is a sum or an answer of the closed form, or a shortlist that it selected."""
    _, kind, *keys = name.split("/")
    answers = kind in ("probabilities", "answers") and keys != ["elbo"]
    return answers or "ridge" in keys or kind in ("unknown", "evidence_of_candidates")


def read(file: Path) -> dict[str, np.ndarray]:
    """Arrays of a worker's file under their canonical names."""
    with np.load(file) as arrays:
        named = {canonical(name): name for name in arrays.files}
        return {name: arrays[old] for name, old in named.items() if not depends_on_features(name)}


def report(base: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> bool:
    """Prints what differs; True if nothing does."""
    for name in sorted(base.keys() ^ now.keys()):
        print(f"only in {'the base' if name in base else 'this tree'}: {name}")
    common = sorted(base.keys() & now.keys())
    different = [name for name in common if base[name].tobytes() != now[name].tobytes()]
    for name in different:
        first, second = base[name], now[name]
        if first.shape != second.shape or first.dtype.kind not in "f":
            print(f"differs: {name}")
        else:
            scale = max(float(np.nanmax(np.abs(first), initial=0)), 1e-30)
            with np.errstate(invalid="ignore"):
                error = float(np.nanmax(np.abs(first - second), initial=0))
            print(f"differs: {name}, by {error:.3g} of {scale:.3g}")
    print(f"{len(common) - len(different)} of {len(common)} arrays are bitwise equal")
    return not different and base.keys() == now.keys()


def main() -> None:
    """Runs both trees and compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="2835e8e", help="commit to compare with")
    parser.add_argument("--cache", default="runs/golden", help="folder that keeps arrays of the base")
    parser.add_argument("cases", nargs="*", help="names of cases in worker.py; default all")
    arguments = parser.parse_args()
    folder = Path(arguments.cache).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    label = "_".join([arguments.base, *arguments.cases])
    base, now = folder / f"{label}.npz", folder / f"now_{label}.npz"
    if not base.exists():
        run_base(arguments.base, base, arguments.cases)
    run_worker(ROOT, now, arguments.cases)
    sys.exit(0 if report(read(base), read(now)) else 1)


if __name__ == "__main__":
    main()
