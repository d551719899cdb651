"""A run as frozen data: its fields, their validation, configuration files, and the scores that the paper reports."""
