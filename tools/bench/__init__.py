"""What the benchmarks share: a load generator, the servers that are compared, and plain tables."""
