"""The papers' experiments on a trained model: tensors in, small dataclasses of results out; no files, no pictures.

Each module is imported by its own name (`from odevid.studies.swap import swap_content`).
"""
