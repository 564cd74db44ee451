"""Switch languages on and off: edits (switch.py), what is written then (responses.py), what it costs (tables.py)."""
