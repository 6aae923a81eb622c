"""The commands' flags. Nothing here imports TensorFlow, so help and flag errors come at once."""

import pathlib
import textwrap

from absl import flags

from dfa_tf.comparison.cells import EXPERIMENTS, SCALES

DEFAULT_CONFIG = "gin/digits.gin"

DESCRIPTIONS = {
    "train_teacher": "Trains the teacher of the config.",
    "search": "Stage 1 of DFA: searches the aggregation of the teacher's features. Trains the teacher first where there is none.",
    "distill": "Stage 2 of DFA: trains the student with the searched aggregation, evaluates it and exports it. Makes the teacher and the search first where they are missing.",
    "export": "Writes the student as a SavedModel and TF Lite files and checks each against it. Distils first where there is no student.",
    "benchmark": "Times the steps of search and distillation in both precisions, beside the machine's own peak, on noise of the shape of the config's data set.",
    "report": "Tables and a figure of several distillations: mean and spread over seeds, by method. WORKDIRs, or folders that hold several; by default the one that --workdir or --gin_file names.",
    "reproduce": "Runs a table, a figure or an ablation of DFA's paper, run by run, and reports it, beside the paper's numbers where it has any. What is done is not run again.",
    "evaluate": "Accuracy of saved models on the config's test split: .keras, SavedModel and .tflite, given by their paths; by default all of the workdir.",
}

ARGUMENTS = {
    "evaluate": " [MODEL ...]",
    "report": " [WORKDIR ...]",
    "reproduce": f" {'|'.join(EXPERIMENTS)}",
}


def define(command):
    """The flags of a command, as an absl FlagValues of its own."""
    values = flags.FlagValues()
    common = {"flag_values": values}
    is_table = command == "reproduce"
    flags.DEFINE_multi_string(
        "gin_file",
        None,
        "a config; repeatable, later ones win. "
        + ("Read after each cell's own" if is_table else f"Default: {DEFAULT_CONFIG}"),
        **common,
    )
    flags.DEFINE_multi_string(
        "gin_bindings", None, "one binding, 'search.epochs=2' say; repeatable", **common
    )
    place = "runs/reproduce_<scale>" if is_table else "runs/<name of the first gin file>"
    flags.DEFINE_string("workdir", None, f"where results go. Default: {place}", **common)
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder of TensorFlow Datasets. Default: TFDS_DATA_DIR, then ~/tensorflow_datasets",
        **common,
    )
    flags.DEFINE_integer(
        "seed", 0, "the first seed" if is_table else "what all randomness follows from", **common
    )
    flags.DEFINE_enum(
        "strategy",
        "mirrored",
        ["mirrored", "default", "multi_worker"],
        "mirrored: all GPUs of this machine, or its CPU; default: one device; multi_worker: all machines that TF_CONFIG, Slurm or Kubernetes name",
        **common,
    )
    if command in ("train_teacher", "search", "distill", "export"):
        flags.DEFINE_boolean("fresh", False, "begin this stage anew", **common)
    if command == "distill":
        flags.DEFINE_boolean("export", True, "write the SavedModel and the TF Lite file", **common)
    if command == "benchmark":
        flags.DEFINE_string("json", None, "file to write the rows to", **common)
        flags.DEFINE_string(
            "profile", None, "folder to write a TensorBoard trace of each step to", **common
        )
    if command == "report":
        flags.DEFINE_string(
            "out",
            None,
            "folder to write report.md, report.csv and the figures to, as .png and .pdf",
            **common,
        )
    if is_table:
        _define_reproduction(common)
    flags.DEFINE_boolean("debug", False, "show the traceback of an error", **common)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", **common)
    return values


def default_workdir(values):
    """The workdir that --workdir or --gin_file names."""
    first = pathlib.Path((values.gin_file or [DEFAULT_CONFIG])[0])
    return pathlib.Path(values.workdir or f"runs/{first.stem}")


def _define_reproduction(common):
    flags.DEFINE_enum(
        "scale",
        "cpu",
        SCALES,
        "paper: its networks and schedules, for GPUs; cpu: small networks and short schedules, WRN_28_2 to WRN_16_1 on a part of CIFAR-100 but for table4",
        **common,
    )
    flags.DEFINE_integer("seeds", 3, "how often each cell is run", lower_bound=1, **common)
    flags.DEFINE_list("only", [], "rows to run, 'kd,dfa' say. Default: all", **common)
    flags.DEFINE_string(
        "shard", "1/1", "k/n: this process runs each n-th cell from the k-th on", **common
    )


def usage(command, values):
    """The help text."""
    lines = [
        *textwrap.wrap(DESCRIPTIONS[command], 90),
        "",
        f"usage: {command}{ARGUMENTS.get(command, '')} [--flag=value ...]",
        "",
    ]
    for name in sorted({flag.name for flag in values._flags().values()}):
        flag = values[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}"
        default = f" (default: {flag.default})" if flag.default not in (None, False, []) else ""
        lines.append(f"  {shown}")
        lines += textwrap.wrap(
            flag.help + default, 84, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(lines)
