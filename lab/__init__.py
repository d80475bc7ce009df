"""The command line of LLM Lab: one file a command; each only calls the library."""
