"""One file a command: its docstring is its help, `arguments` declares its options, `run` calls the library."""
