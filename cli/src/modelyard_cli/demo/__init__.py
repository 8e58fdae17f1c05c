"""The demo: a recorded stream replayed against a running platform, and the story of what the platform makes of it.

Nothing here tells the platform anything that a real application would not: it asks the inference API, it sends
labels when they are due, and it applies one manifest.
"""
