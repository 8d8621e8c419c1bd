"""What `predict` does: find the videos, read their first frames as the run's data was made, sample, write pictures."""
