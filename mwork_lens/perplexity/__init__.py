"""Whose neurons are off, and which language suffers: scores (scores.py) and what they say (tables.py)."""
