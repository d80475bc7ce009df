"""Models: built from a `ModelSpec`, laid out over processes, saved and exported as plain Hugging Face folders."""
