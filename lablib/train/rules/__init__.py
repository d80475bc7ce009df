"""Update rules beside AdamW, on sharded parameters; `lablib.train.optimizer` decides which parameter follows which."""
