"""The commands' flags. Nothing here imports TensorFlow, so help and flag errors come at once."""

import textwrap

from absl import flags

DEFAULT_CONFIG = "gin/digits.gin"

DESCRIPTIONS = {
    "train_teacher": "Trains the teacher of the config.",
    "search": "Stage 1 of DFA: searches the aggregation of the teacher's features. Trains the teacher first where there is none.",
    "distill": "Stage 2 of DFA: trains the student with the searched aggregation, evaluates it and exports it. Makes the teacher and the search first where they are missing.",
    "export": "Writes the student as a SavedModel and TF Lite files and checks each against it. Distils first where there is no student.",
    "benchmark": "Times the steps of search and distillation in both precisions, beside the machine's own peak, on noise of the shape of the config's data set.",
    "evaluate": "Accuracy of saved models on the config's test split: .keras, SavedModel and .tflite, given by their paths; by default all of the workdir.",
}


def define(command):
    """The flags of a command, as an absl FlagValues of its own."""
    values = flags.FlagValues()
    common = {"flag_values": values}
    flags.DEFINE_multi_string(
        "gin_file",
        None,
        f"a config; repeatable, later ones win. Default: {DEFAULT_CONFIG}",
        **common,
    )
    flags.DEFINE_multi_string(
        "gin_bindings", None, "one binding, 'search.epochs=2' say; repeatable", **common
    )
    flags.DEFINE_string(
        "workdir", None, "where results go. Default: runs/<name of the first gin file>", **common
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder of TensorFlow Datasets. Default: TFDS_DATA_DIR, then ~/tensorflow_datasets",
        **common,
    )
    flags.DEFINE_integer("seed", 0, "what all randomness follows from", **common)
    flags.DEFINE_enum(
        "strategy",
        "mirrored",
        ["mirrored", "default", "multi_worker"],
        "mirrored: all GPUs of this machine, or its CPU; default: one device; multi_worker: all machines that TF_CONFIG, Slurm or Kubernetes name",
        **common,
    )
    if command not in ("evaluate", "benchmark"):
        flags.DEFINE_boolean("fresh", False, "begin this stage anew", **common)
    if command == "distill":
        flags.DEFINE_boolean("export", True, "write the SavedModel and the TF Lite file", **common)
    if command == "benchmark":
        flags.DEFINE_string("json", None, "file to write the rows to", **common)
        flags.DEFINE_string(
            "profile", None, "folder to write a TensorBoard trace of each step to", **common
        )
    flags.DEFINE_boolean("debug", False, "show the traceback of an error", **common)
    flags.DEFINE_boolean("help", False, "show this help", short_name="h", **common)
    return values


def usage(command, values):
    """The help text."""
    paths = " [MODEL ...]" if command == "evaluate" else ""
    lines = [
        *textwrap.wrap(DESCRIPTIONS[command], 90),
        "",
        f"usage: {command}{paths} [--flag=value ...]",
        "",
    ]
    for name in sorted({flag.name for flag in values._flags().values()}):
        flag = values[name]
        shown = f"--[no]{name}" if flag.boolean else f"--{name}"
        default = f" (default: {flag.default})" if flag.default not in (None, False) else ""
        lines.append(f"  {shown}")
        lines += textwrap.wrap(
            flag.help + default, 84, initial_indent="      ", subsequent_indent="      "
        )
    return "\n".join(lines)
