"""How firm is a set of neurons? Resampled documents (stability.py), other settings (sensitivity.py), other methods (agreement.py)."""
