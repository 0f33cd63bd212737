"""Ridge regression from sums of image features."""
