"""Runs things: launching, rendezvous, engine, loop, checkpoints, tracking, evaluation jobs.

The only package that imports both `odevid` (the science) and `shards` (the data).
"""
