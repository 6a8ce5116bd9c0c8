"""Models and indices as they are used after training: found by folder or by registered version, opened, searched."""
