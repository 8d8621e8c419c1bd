"""The life of runs in the queue: submitted, started again, looked at, followed, cancelled."""
