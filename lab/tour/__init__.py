"""The tour: a budget becomes a plan, a base model, an aligned model, an evaluation and a report, on this machine."""
