"""Jobs: a command of this project, run on a cluster at one commit, whose results are fetched through the bucket."""
