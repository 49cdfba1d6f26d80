"""The 13 tasks: data sets as they are downloaded, their splits, labels and windows."""
