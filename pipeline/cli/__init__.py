"""The command line `dagnn`, one module a group of commands."""
