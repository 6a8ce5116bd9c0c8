"""The data card: a page about a data set, which lies in its artifact."""
