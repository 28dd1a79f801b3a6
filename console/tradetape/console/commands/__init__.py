"""One module for each group of commands; `register` adds its parsers, `run` does the work."""
