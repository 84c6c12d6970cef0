"""The 56 papers behind skillweave: the catalog here, later one reproduction a file."""
