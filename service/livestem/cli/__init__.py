"""The command line: the composition root. Options become objects here, and nowhere else."""
