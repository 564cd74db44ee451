"""One file per method: which neurons belong to which language, and what chance would give."""
