"""Where languages meet: sentence embeddings per layer (embeddings.py), how near they are (tables.py)."""
