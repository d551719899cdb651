"""The command line in words: the arguments of each command, and the fields of an experiment."""
