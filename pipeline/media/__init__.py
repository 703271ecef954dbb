"""What the stages are made of: reading, measuring and resizing media. Plain functions on local files."""
