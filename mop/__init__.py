"""Mixture-of-pathways policies: trained, evaluated, analysed, shown. Each folder is one stage of the pipeline.

common < artifacts, statistics, fast < envs, analysis < plotting < training < evaluation < apps, cloud
"""

from mop.common import interruption

interruption.install()  # first: it is for Ctrl-C while all else is imported, too
