"""The steps of dfa_tf compared with the same steps in PyTorch and stock Keras on this machine.

    pip install -e '.[benchmark]'
    python benchmarks/compare.py --json=comparison.json
    python benchmarks/compare.py --old=CHECKOUT         # another version of dfa_tf, alone

Each implementation runs in its own process, which waits for requests. In a round, each one runs a
step for about a second, and the order rotates from round to round. A ratio is the time of a peer
over the time of dfa_tf in the same round. The median over the rounds is reported. "search_all" is
the joint search of dfa_tf, compared with a peer's iterations of the three groups, one after the other.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from dfa_tf.benchmark.timing import median_and_interval

PAUSE = 0.5  # seconds; OpenMP threads keep spinning for a while after PyTorch's turn
ROOT = pathlib.Path(__file__).parents[1]
OLD = "dfa_tf, old"
COMMANDS = {
    "dfa_tf": ["ours.py"],
    "Keras 3": ["stock_keras.py"],
    "PyTorch": ["pytorch.py"],
    "PyTorch, torch.compile": ["pytorch.py", "--compile"],
}
# The ratios to reach: {(step, group, precision): {first word of the peers: ratio}}.
AIMS = {
    ("search", 2, "bfloat16"): {"PyTorch": 2.0, "Keras": 2.0},
    ("search", 2, "float32"): {"PyTorch": 1.7},
    ("distill", None, "bfloat16"): {"PyTorch": 2.0, "Keras": 2.3},
    ("distill", None, "float32"): {"PyTorch": 1.5},
}
STEPS = [
    *(("search", group) for group in (1, 2, 3)),
    *((step, 0) for step in ("search_all", "distill", "teacher_forward")),
]


class Peer:
    """The process of one implementation.

    Args:
        name: Name of the implementation.
        command: A script in benchmarks/peers, and its switches.
        precision: "float32" or "bfloat16".
        networks: Flags that set teacher and student.
        checkout: The checkout that contains the script and dfa_tf.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        precision: str,
        networks: list[str],
        checkout: pathlib.Path = ROOT,
    ):
        script, *switches = command
        arguments = [
            sys.executable,
            str(checkout / "benchmarks" / "peers" / script),
            f"--precision={precision}",
            *switches,
            *networks,
        ]
        self.name = name
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit(f"{name} did not start: {' '.join(arguments)}")
        self._counts = {}

    def seconds(self, step: tuple[str, int]) -> float:
        """Returns the seconds of one iteration, from a sample of about a second."""
        if step not in self._counts:
            self._request(step, 2)  # traces, compiles, warms up
            once = min(self._request(step, 1) for _ in range(2))
            self._counts[step] = max(1, round(1.0 / once))
        count = self._counts[step]
        return self._request(step, count) / count

    def _request(self, step, count):
        print(*step, count, file=self._process.stdin, flush=True)
        response = self._process.stdout.readline()
        if not response:
            raise SystemExit(f"{self.name} stopped in {step}")
        return float(response)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def compare(peers: list[Peer], precision: str, rounds: int) -> list[dict]:
    """Returns a row for each step and peer: milliseconds and ratios over the rounds.

    The first peer is dfa_tf. All processes are ended.
    """
    rows = []
    for step in STEPS:
        samples = {peer.name: [] for peer in peers}
        for peer in peers:
            peer.seconds(step)
        for k in range(rounds):
            first = k % len(peers)
            for peer in peers[first:] + peers[:first]:
                time.sleep(PAUSE)
                samples[peer.name].append(peer.seconds(step))
        for name, seconds in samples.items():
            pairs = zip(seconds, samples["dfa_tf"], strict=True)
            rows.append(
                {
                    "step": step[0],
                    "group": step[1] or None,
                    "precision": precision,
                    "peer": name,
                    "ms": min_median_max([1000 * value for value in seconds]),
                    "ratio": min_median_max(ratios := [peer / dfa for peer, dfa in pairs]),
                    "ratios": ratios,
                }
            )
            print(line(rows[-1]), flush=True)
    for peer in peers:
        peer.close()
    return rows


def min_median_max(values: list[float]) -> dict[str, float]:
    """Returns the smallest value, the median and the largest value."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def aims(rows: list[dict]) -> list[tuple[str, bool]]:
    """Returns (text, whether it is reached) for each measured aim.

    Of several rows of one peer, the one with the smallest ratio counts.
    """
    results = []
    for (step, group, precision), targets in AIMS.items():
        for peer, aim in targets.items():
            ratios = [
                row["ratio"]["median"]
                for row in rows
                if (row["step"], row["group"], row["precision"]) == (step, group, precision)
                and row["peer"].startswith(peer)
            ]
            if ratios:
                text = f"{step} {group or ''} {precision}: {min(ratios):.2f} x {peer}, aim {aim}"
                results.append((text, min(ratios) >= aim))
    return results


def line(row: dict) -> str:
    """Returns a row of the comparison as text."""
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
    parser.add_argument("--old", type=pathlib.Path, metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--teacher", nargs=2, default=["28", "4"], metavar=("DEPTH", "WIDTH"))
    parser.add_argument("--student", nargs=2, default=["16", "2"], metavar=("DEPTH", "WIDTH"))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="fail if an aim is missed")
    arguments = parser.parse_args()
    networks = ["--teacher", *arguments.teacher, "--student", *arguments.student]
    rows = []
    for precision in arguments.precision:
        peers = [Peer("dfa_tf", COMMANDS["dfa_tf"], precision, networks)]
        if arguments.old:
            checkout = arguments.old.resolve()
            peers.append(Peer(OLD, COMMANDS["dfa_tf"], precision, networks, checkout))
        else:
            others = [name for name in arguments.peers if name != "dfa_tf"]
            peers += [Peer(name, COMMANDS[name], precision, networks) for name in others]
        rows += compare(peers, precision, arguments.rounds)
    if arguments.old:
        ratios = [1 / ratio for row in rows if row["peer"] == OLD for ratio in row["ratios"]]
        median, low, high = median_and_interval(ratios)
        print(f"new over old: {median:.3f} ({low:.3f} to {high:.3f}), {len(ratios)} pairs")
    results = aims(rows)
    for text, is_reached in results:
        print(text, "reached" if is_reached else "missed")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if arguments.check and not all(is_reached for _, is_reached in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
