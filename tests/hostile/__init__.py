"""Input that means harm: what it is, what becomes of it, and a search for more of it."""
