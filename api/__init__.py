"""The HTTP API. The only FastAPI in the project."""
