"""dfa_tf's steps beside the same steps in PyTorch and stock Keras, run in turn on this machine.

    pip install -e '.[benchmark]'
    python benchmarks/compare.py --json=comparison.json

Each implementation is a process of its own that waits until it is asked. In every round each is
asked for as many iterations as take about a second, each time another one first; a ratio is a peer's time over ours in the
same round, and its median over the rounds is what is told.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

PAUSE = 0.5  # seconds: OpenMP's threads go on spinning for a while after PyTorch's turn
PEERS = pathlib.Path(__file__).parent / "peers"
COMMANDS = {
    "dfa_tf": ["ours.py"],
    "Keras 3": ["stock_keras.py"],
    "PyTorch": ["pytorch.py"],
    "PyTorch, torch.compile": ["pytorch.py", "--compile"],
}
# (step, group, precision): {a peer's first word: how many times as fast ours is to be}
AIMS = {
    ("search", 2, "bfloat16"): {"PyTorch": 2.0, "Keras": 2.0},
    ("search", 2, "float32"): {"PyTorch": 1.7},
    ("distill", None, "bfloat16"): {"PyTorch": 2.0, "Keras": 2.3},
    ("distill", None, "float32"): {"PyTorch": 1.5},
}
STEPS = [("search", 1), ("search", 2), ("search", 3), ("distill", 0), ("teacher_forward", 0)]


class Peer:
    """One implementation's process."""

    def __init__(self, name, precision, networks):
        script, *more = COMMANDS[name]
        command = [
            sys.executable,
            str(PEERS / script),
            f"--precision={precision}",
            *more,
            *networks,
        ]
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit(f"{name} did not start: {' '.join(command)}")
        self._counts = {}

    def seconds(self, step):
        """Seconds of one iteration, from a sample of about a second."""
        if step not in self._counts:
            self._ask(step, 2)  # traces, compiles, warms up
            once = min(self._ask(step, 1) for _ in range(2))
            self._counts[step] = max(1, round(1.0 / once))
        count = self._counts[step]
        return self._ask(step, count) / count

    def _ask(self, step, count):
        print(*step, count, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} stopped in {step}")
        return float(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def compare(precision, names, rounds, networks):
    """One row for each step and peer: milliseconds and ratios over the rounds."""
    peers = [Peer(name, precision, networks) for name in names]
    rows = []
    for step in STEPS:
        samples = {peer.name: [] for peer in peers}
        for peer in peers:
            peer.seconds(step)
        for k in range(rounds):
            turn = k % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                time.sleep(PAUSE)
                samples[peer.name].append(peer.seconds(step))
        for name, seconds in samples.items():
            ratios = [
                theirs / ours for theirs, ours in zip(seconds, samples["dfa_tf"], strict=True)
            ]
            rows.append(
                {
                    "step": step[0],
                    "group": step[1] or None,
                    "precision": precision,
                    "peer": name,
                    "ms": {
                        "min": 1000 * min(seconds),
                        "median": 1000 * statistics.median(seconds),
                        "max": 1000 * max(seconds),
                    },
                    "ratio": {
                        "min": min(ratios),
                        "median": statistics.median(ratios),
                        "max": max(ratios),
                    },
                }
            )
            print(line(rows[-1]), flush=True)
    for peer in peers:
        peer.close()
    return rows


def aims(rows):
    """[(text, whether reached)] for each aim that was measured; a peer's better row counts."""
    found = []
    for (step, group, precision), wanted in AIMS.items():
        for peer, aim in wanted.items():
            ratios = [
                row["ratio"]["median"]
                for row in rows
                if (row["step"], row["group"], row["precision"]) == (step, group, precision)
                and row["peer"].startswith(peer)
            ]
            if ratios:
                text = f"{step} {group or ''} {precision}: {min(ratios):.2f} x {peer}, aim {aim}"
                found.append((text, min(ratios) >= aim))
    return found


def line(row):
    """A row of the comparison as text."""
    ms, ratio = row["ms"], row["ratio"]
    step = f"{row['step']} {row['group'] or ''}".strip()
    return (
        f"{step:16} {row['precision']:9} {row['peer']:24}"
        f"{ms['median']:8.1f} ms ({ms['min']:.1f} to {ms['max']:.1f}) "
        f"{ratio['median']:6.2f} x ours ({ratio['min']:.2f} to {ratio['max']:.2f})"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--peers", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--teacher", nargs=2, default=["28", "4"], metavar=("DEPTH", "WIDTH"))
    parser.add_argument("--student", nargs=2, default=["16", "2"], metavar=("DEPTH", "WIDTH"))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="fail where an aim is missed")
    arguments = parser.parse_args()
    names = ["dfa_tf", *(name for name in arguments.peers if name != "dfa_tf")]
    networks = ["--teacher", *arguments.teacher, "--student", *arguments.student]
    rows = []
    for precision in arguments.precision:
        rows += compare(precision, names, arguments.rounds, networks)
    results = aims(rows)
    for text, reached in results:
        print(text, "reached" if reached else "missed")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if arguments.check and not all(reached for _, reached in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
