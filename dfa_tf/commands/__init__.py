"""The commands: bin/search in a clone, dfa-search if the package is installed."""
