"""What a run tells: the JSONL truth, its W&B mirror, the console, and the meters that feed them."""
