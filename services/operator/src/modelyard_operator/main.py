"""Starts the operator."""
