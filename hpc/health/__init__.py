"""What nodes are like: probes, what they mean, the check of every attempt, the doctor."""
