"""Runs as Slurm jobs: submission through submitit, and states asked of Slurm itself."""
