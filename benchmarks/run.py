"""Prints every table of the benchmarks as Markdown; `--quick` only shows that all of them run.

Each benchmark runs in a process of its own, as a module started from the repository's root.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPS = (
    "linear", "conv1d", "lstm", "bigru_control", "attention", "source_gate", "gated_norm",
    "feed_forward_norm", "cmd", "ulgm_labels", "adam_",
)  # fmt: skip


def output(module: str, *options: str) -> str:
    """The tables that a benchmark prints, or a sentence if it fails; its errors go to standard error."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *options]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        FAILED.append(module)
        return f"{module} failed.\n"
    return result.stdout


FAILED: list[str] = []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", help="of both sides; default: torch's")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    args = parser.parse_args()
    options = [*(["--threads", args.threads] if args.threads else []), *(["--quick"] if args.quick else [])]

    print("## Training and prediction, text features given\n")
    print(output("step", *options), flush=True)
    print("## Training and prediction, BERT-base fine-tuned\n")
    print(output("step", "--bert", *options), flush=True)
    print("## Starting\n")
    print(output("startup", *options), flush=True)
    print("## Ops, forward and backward\n")
    for number, op in enumerate(OPS):
        lines = output(f"ops.{op}", *options).strip().splitlines()
        print("\n".join(lines[2 if number else 0 :]), flush=True)  # one table: one header
    return len(FAILED)


if __name__ == "__main__":
    sys.exit(main())
