"""What a model writes (generate.py), in which language (identify.py, confusion.py), and how good it is (questions.py)."""
