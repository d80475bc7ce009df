"""Post-training on TRL: supervised fine-tuning, preference optimisation and reinforcement on verifiable rewards."""
