"""A small multilingual world whose every fact, passage and problem is known: meanings first, then sentences in seven languages."""
