"""The platform on one machine: processes on loopback, a data folder, and what keeps them running."""
