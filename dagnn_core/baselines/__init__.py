"""Methods that DAGNN is compared with."""
