"""The benchmark of inference: models, questions, servers, load, the record of a run, and what is read from it."""
