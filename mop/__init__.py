"""Mixture-of-pathways policies: trained, evaluated, analysed, shown. A folder is a stage of the data's way.

common < artifacts, statistics, fast < envs, analysis < plotting < training < evaluation < apps, cloud
"""
