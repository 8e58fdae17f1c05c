"""Constructs the operator."""
