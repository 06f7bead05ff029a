"""CurSim: how much a person in the video resembles their reference, read by CurricularFace.

Formula and values: see `identity_similarity`.
Source: Huang et al., CurricularFace (arXiv 2004.00288); evaluation as in ConsisID (arXiv
2411.17440).
"""

from idbench.metrics.identity_similarity import identity_metric

METRIC = identity_metric(
    "cursim", "CurSim", "curricularface", "Huang et al., CurricularFace (arXiv 2004.00288)")
