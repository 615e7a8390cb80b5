"""What scripts and the cloud carry out: evaluations of checkpoints, jobs on Modal; imports all but pages."""
