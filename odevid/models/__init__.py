"""The video models, one module each."""
