"""Sections of a comparison's page, and pages of several comparisons."""
