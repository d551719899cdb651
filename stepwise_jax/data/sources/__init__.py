"""One module for each kind of data set that `prepare` can make."""
