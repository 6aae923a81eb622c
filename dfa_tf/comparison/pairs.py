"""The pairs of networks that `bin/reproduce` compares methods on, and their scales."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher and a student on a data set.

    Attributes:
        config: Gin file of the pair.
        teacher: Folder of the teacher, which several pairs may share.
        teacher_config: Gin file that trains the teacher.
        reference: Name of the paper's numbers in `paper.REFERENCES`.
        teacher_bindings: Further gin bindings for training the teacher.
    """

    config: str
    teacher: str
    teacher_config: str
    reference: str
    teacher_bindings: tuple[str, ...] = ()


ALL_IMAGES = ("dataset.train_fraction=1.0",)
PAIRS = {
    "pair1": Pair("gin/wrn_pair1.gin", "teacher", "gin/wrn.gin", "pair1"),
    "pair2": Pair("gin/wrn_pair2.gin", "teacher", "gin/wrn.gin", "pair2"),
    "pair3": Pair("gin/wrn.gin", "teacher", "gin/wrn.gin", "pair3"),
    "smoke": Pair(
        "gin/reproduce_smoke.gin", "teacher", "gin/reproduce_smoke.gin", "pair3", ALL_IMAGES
    ),
    "cpu": Pair("gin/reproduce_cpu.gin", "teacher", "gin/reproduce_cpu.gin", "pair3", ALL_IMAGES),
    "cpu_feed": Pair(
        "gin/reproduce_cpu.gin",
        "teacher_short",
        "gin/reproduce_cpu.gin",
        "pair3",
        (*ALL_IMAGES, "train_teacher.epochs=8.0"),
    ),
    "cinic10_pair1": Pair(
        "gin/cinic10_pair1.gin", "teacher_cinic10_x2", "gin/cinic10_pair1.gin", "cinic10_pair1"
    ),
    "cinic10_pair2": Pair(
        "gin/cinic10_pair2.gin", "teacher_cinic10_x2", "gin/cinic10_pair1.gin", "cinic10_pair2"
    ),
    "cinic10_pair3": Pair(
        "gin/cinic10_pair3.gin", "teacher_cinic10_x1", "gin/cinic10_pair3.gin", "cinic10_pair3"
    ),
    "cinic10_cpu": Pair(
        "gin/cinic10_cpu.gin", "teacher_cinic10", "gin/cinic10_cpu.gin", "cinic10_pair3"
    ),
}
SCALES = ("smoke", "cpu", "paper")
SMALL = {"smoke": ("smoke",), "cpu": ("cpu",)}
CIFAR100 = SMALL | {"paper": ("pair1", "pair2", "pair3")}
CINIC10 = {
    "smoke": ("cinic10_cpu",),
    "cpu": ("cinic10_cpu",),
    "paper": ("cinic10_pair1", "cinic10_pair2", "cinic10_pair3"),
}
FIGURE4 = SMALL | {"paper": ("pair1",)}
PAIR3 = SMALL | {"paper": ("pair3",)}
FEED_TEACHERS = {"smoke": ("smoke",), "cpu": ("cpu_feed",), "paper": ("pair3",)}
