"""Shows where the time of a training step goes, by torch.profiler, which records every operation of mmiln.

python -m benchmarks.profile --threads 1
python -m benchmarks.profile --threads 1 --bert
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict

from torch.profiler import ProfilerActivity, profile

from benchmarks.common import BATCH, arguments, batches, counted, describe, duration, parse, table
from benchmarks.step import STEPS, Ours, new_model, write_bert

NAME = "mmiln::"
BACKWARD = " backward"
LEAST = 0.005  # operations with a smaller share of the step are summed up


def main() -> None:
    parser = arguments(None)
    parser.add_argument("--bert", action="store_true", help="fine-tune a BERT-base with random weights")
    args = parse(parser)
    given = batches(2 if args.quick else STEPS, bert=args.bert)
    with tempfile.TemporaryDirectory() as directory:
        encoder = write_bert(directory, quick=args.quick) if args.bert else None
        ours = Ours(new_model(encoder), len(given) * BATCH)
    for batch in given:
        ours.step(batch)
    started = time.perf_counter()
    for batch in given:
        ours.step(batch)
    step = (time.perf_counter() - started) / len(given)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for batch in given:
            ours.step(batch)

    spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in profiler.key_averages():
        if event.key.startswith(NAME):
            name = event.key.removeprefix(NAME)
            seconds = event.cpu_time_total / 1e6 / len(given)
            spent[name.removesuffix(BACKWARD)][name.endswith(BACKWARD)] += seconds
    rest = step - sum(sum(both) for both in spent.values())
    shown = {name: both for name, both in spent.items() if sum(both) >= LEAST * step}
    few = [sum(both[i] for name, both in spent.items() if name not in shown) for i in (0, 1)]
    rows = [
        [name, duration(both[0]), duration(both[1]), f"{sum(both) / step:.0%}"]
        for name, both in sorted(shown.items(), key=lambda item: -sum(item[1]))
    ]
    rows.append(["the other operations", duration(few[0]), duration(few[1]), f"{sum(few) / step:.0%}"])
    rows.append(["packing, pseudo-labels, graph", duration(rest), "", f"{rest / step:.0%}"])
    print(f"{describe(given)}; a step takes {duration(step)}.\n")
    print(table([f"operation, {counted(args.threads)}", "forward", "backward", "share"], rows))


if __name__ == "__main__":
    main()
