"""Understanding, reasoning, knowledge and generation as tasks: items (task.py), how they are asked (run.py), what the scores say (tables.py)."""
