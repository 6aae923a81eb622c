"""The flags of the commands. Imports no TensorFlow, so that --help and flag errors are fast."""

import pathlib
import textwrap

from absl import flags

from dfa_tf.comparison.experiments import EXPERIMENTS
from dfa_tf.comparison.pairs import SCALES
from dfa_tf.errors import UserError

DEFAULT_CONFIG = "gin/digits.gin"
LONGEST_NAME = 255  # bytes, of a file on Linux

DESCRIPTIONS = {
    "train_teacher": "Train the teacher of a config.",
    "search": "Search what the distillation of a config needs: how to aggregate the teacher's features (stage 1 of DFA), or a process. Trains the teacher first if it is missing.",
    "distill": "Distil: train the student by the methods of a config (by default stage 2 of DFA), evaluate it and export it. Runs the earlier stages first if their results are missing.",
    "export": "Write the student as a SavedModel and as TF Lite files, and verify each of them. Runs the distillation first if the student is missing.",
    "evaluate": "Report accuracy, top-5 and macro-averaged accuracy, calibration error and loss of saved models on the test split of the config. MODELs are .keras, SavedModel or .tflite files. Default: all models of the workdir.",
    "benchmark": "Measure the speed of each step of search and distillation in both precisions, next to the peak of this machine. Inputs are noise in the shape of the config's images.",
    "report": "Write tables and a figure for several distillations: mean and spread over seeds, by method. WORKDIRs are workdirs or folders of workdirs. Default: the workdir that --workdir or --gin_file names.",
    "reproduce": "Rerun a table, a figure or an ablation of the DFA paper and report the results next to the paper's numbers, if it has any. Finished runs are not repeated.",
}

ARGUMENTS = {
    "evaluate": " [MODEL ...]",
    "report": " [WORKDIR ...]",
    "reproduce": f" {'|'.join(EXPERIMENTS)}",
}


def define(command: str) -> flags.FlagValues:
    """Returns the flags of a command.

    Args:
        command: A key of `DESCRIPTIONS`.
    """
    values = flags.FlagValues()
    _define_common(values, command)
    if command in ("train_teacher", "search", "distill", "export"):
        flags.DEFINE_boolean(
            "fresh",
            False,
            "delete the results of this stage and start from scratch",
            flag_values=values,
        )
        flags.DEFINE_boolean(
            "describe",
            False,
            "print the groups of teacher and student, check the config, and end",
            flag_values=values,
        )
    if command == "distill":
        flags.DEFINE_boolean(
            "export", True, "write the SavedModel and the float32 TF Lite file", flag_values=values
        )
    if command == "benchmark":
        flags.DEFINE_boolean(
            "systems",
            False,
            "time the steps of Adaptive Distillation, FEED and DistPro instead",
            flag_values=values,
        )
        flags.DEFINE_string("json", None, "file to write the rows to", flag_values=values)
        flags.DEFINE_string(
            "profile",
            None,
            "folder to write a TensorBoard trace of each step to",
            flag_values=values,
        )
    if command == "report":
        flags.DEFINE_string(
            "out",
            None,
            "folder to write report.md, report.csv, the figures as .png and .pdf, and hparams/ for "
            "TensorBoard to",
            flag_values=values,
        )
    if command == "evaluate":
        flags.DEFINE_string(
            "out",
            None,
            "folder to write the accuracy of each class and the confusion matrix to",
            flag_values=values,
        )
    if command == "reproduce":
        _define_reproduction(values)
    flags.DEFINE_boolean("debug", False, "print the traceback of an error", flag_values=values)
    flags.DEFINE_boolean("help", False, "print this help", short_name="h", flag_values=values)
    return values


def _define_common(values, command):
    is_table = command == "reproduce"
    order = "Applied after the config of each cell" if is_table else f"Default: {DEFAULT_CONFIG}"
    flags.DEFINE_multi_string(
        "gin_file", None, f"a config. Repeatable: later ones override. {order}", flag_values=values
    )
    flags.DEFINE_multi_string(
        "gin_bindings",
        None,
        "a binding such as 'search.epochs=2'. Repeatable. Overrides the configs",
        flag_values=values,
    )
    workdir = "runs/reproduce_<scale>" if is_table else "runs/<name of the first gin file>"
    flags.DEFINE_string(
        "workdir", None, f"folder for the results. Default: {workdir}", flag_values=values
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "folder of TensorFlow Datasets. Default: TFDS_DATA_DIR, then ~/tensorflow_datasets",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seed", 0, "first seed" if is_table else "seed of all random numbers", flag_values=values
    )
    strategies = {
        "mirrored": "all GPUs of this machine, or its CPU",
        "default": "one device",
        "multi_worker": "all machines that TF_CONFIG, Slurm or Kubernetes lists",
    }
    if command == "benchmark":  # which measures one machine
        del strategies["multi_worker"]
    flags.DEFINE_enum(
        "strategy",
        "mirrored",
        list(strategies),
        "; ".join(f"{name}: {meaning}" for name, meaning in strategies.items()),
        flag_values=values,
    )


def _define_reproduction(values):
    flags.DEFINE_enum(
        "scale",
        "smoke",
        SCALES,
        "paper: the paper's networks and schedules, for GPUs; cpu: WRN_28_2 to WRN_16_1, 40 epochs on two fifths of CIFAR-100; smoke: 937 steps on a fifth, which shows that all rows run. In table4, cpu and smoke are the same, on CINIC-10",
        flag_values=values,
    )
    flags.DEFINE_string(
        "results",
        None,
        "folder that keeps the metrics of finished cells, and the teacher. Cells in it are not run again",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seeds", 3, "number of runs of each cell", lower_bound=1, flag_values=values
    )
    flags.DEFINE_list("only", [], "rows to run, such as 'kd,dfa'. Default: all", flag_values=values)
    flags.DEFINE_string(
        "shard",
        "1/1",
        "k/n: this process runs every n-th cell, starting at the k-th",
        flag_values=values,
    )


def default_workdir(values: flags.FlagValues) -> pathlib.Path:
    """Returns the workdir that --workdir or --gin_file names.

    Raises:
        UserError: If no file can have this name, or TensorFlow and JSON cannot write it.
    """
    first = pathlib.Path((values.gin_file or [DEFAULT_CONFIG])[0])
    workdir = values.workdir or f"runs/{first.stem}"
    if "\0" in workdir or not workdir.isprintable():
        raise UserError(
            f"--workdir: expected a path of printable characters in UTF-8, got {workdir!r}"
        )
    if "://" in workdir:
        raise UserError(f"--workdir: expected a folder of this machine, got {workdir}")
    if any(len(part.encode()) > LONGEST_NAME for part in pathlib.Path(workdir).parts):
        raise UserError(f"--workdir: expected names of at most {LONGEST_NAME} bytes, got {workdir}")
    return pathlib.Path(workdir).expanduser()


def usage(command: str, values: flags.FlagValues) -> str:
    """Returns the help text of a command."""
    lines = [
        *textwrap.wrap(DESCRIPTIONS[command], 90),
        "",
        f"usage: {command}{ARGUMENTS.get(command, '')} [--flag=value ...]",
        "",
    ]
    for name in sorted({values[name].name for name in values}):
        flag = values[name]
        text = flag.help.partition(";\n")[0]  # absl adds a line to flags that can be repeated
        if flag.default not in (None, []) and flag.default is not False:
            text += f" (default: {flag.default})"
        lines.append(f"  --[no]{name}" if flag.boolean else f"  --{name}")
        lines += textwrap.wrap(text, 84, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
