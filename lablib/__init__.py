"""LLM Lab: the recipe you price is the recipe you run, and the report shows both."""
