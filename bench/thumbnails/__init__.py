"""The picture path beside sharp."""
