"""ArcSim: how much a person in the video resembles their reference, read by ArcFace.

Formula and values: see `identity_similarity`.
Source: Deng et al., ArcFace (arXiv 1801.07698); evaluation as in ConsisID (arXiv 2411.17440).
"""

from idbench.metrics.identity_similarity import identity_metric

METRIC = identity_metric(
    "arcsim", "ArcSim", "arcface", "Deng et al., ArcFace (arXiv 1801.07698)")
