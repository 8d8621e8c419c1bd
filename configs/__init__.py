"""YAML files: one per experiment of a paper, per cluster, per size. A package only so that `pip install` carries them."""
