"""Distillation methods, one file for each, and the code that they share.

To add a method, see docs/adding-a-method.md.
"""

from dfa_tf.methods.ab import AB
from dfa_tf.methods.at import AT
from dfa_tf.methods.crd import CRD
from dfa_tf.methods.dfa import DFA
from dfa_tf.methods.dist import DIST
from dfa_tf.methods.dkd import DKD
from dfa_tf.methods.ensemble_kd import EnsembleKD
from dfa_tf.methods.feed import FEED
from dfa_tf.methods.fitnets import FitNets
from dfa_tf.methods.ft import FT
from dfa_tf.methods.jacobian import Jacobian
from dfa_tf.methods.kd import KD
from dfa_tf.methods.logits import Logits
from dfa_tf.methods.margin import Margin
from dfa_tf.methods.method import Method
from dfa_tf.methods.nst import NST
from dfa_tf.methods.pathways import Pathways
from dfa_tf.methods.reviewkd import ReviewKD
from dfa_tf.methods.rkd import RKD
from dfa_tf.methods.sp import SP
from dfa_tf.methods.srrl import SRRL
from dfa_tf.methods.vid import VID

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        DFA,
        KD,
        FitNets,
        AT,
        Jacobian,
        FT,
        AB,
        SP,
        Margin,
        NST,
        VID,
        RKD,
        CRD,
        DKD,
        ReviewKD,
        DIST,
        Logits,
        SRRL,
        FEED,
        EnsembleKD,
        Pathways,
    )
}

__all__ = [
    "AB",
    "AT",
    "CRD",
    "DFA",
    "DIST",
    "DKD",
    "FEED",
    "FT",
    "KD",
    "METHODS",
    "NST",
    "RKD",
    "SP",
    "SRRL",
    "VID",
    "EnsembleKD",
    "FitNets",
    "Jacobian",
    "Logits",
    "Margin",
    "Method",
    "Pathways",
    "ReviewKD",
]
