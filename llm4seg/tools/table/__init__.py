"""One table over data sets: a row a method, a column a data set, out of studies and trained runs."""
