"""YAML files: one per experiment of a paper, per cluster, per size. A package so that pip carries them."""
