"""One run as frozen data: its fields, their validation, configuration files, and what the paper reports."""
