"""Roots of facts: cloze probing, sharing between languages, the neurons of a fact, and where a fact comes from."""
