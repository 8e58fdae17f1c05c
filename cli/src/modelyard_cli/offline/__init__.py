"""Score files of any size in constant memory: read in pieces, ask the server, write in order, whole or not at all."""
