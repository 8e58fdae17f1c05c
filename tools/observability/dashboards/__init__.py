"""One module a dashboard: what it shows, in the order in which it is read."""
