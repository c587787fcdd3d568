"""Figures: drawn from the tensors that a script kept."""
