"""Experts inside dense models: partition an FFN, count which part fires for which language, keep what a language needs."""
