"""Checkpoints that exist only when complete: `store` commits and verifies them, `writer` does so in a thread."""
