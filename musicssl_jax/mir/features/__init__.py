"""One pass of an encoder over a data set, and what it leaves on the disk."""
