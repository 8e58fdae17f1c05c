"""Who asks, and what they may do: tokens, principals, guards. Default deny."""
