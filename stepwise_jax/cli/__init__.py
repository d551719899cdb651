"""The command line: arguments, overrides, tables, and the live display."""
