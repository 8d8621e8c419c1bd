"""Pictures of predictions: animated grids (GIF, MP4), strips over time (PNG), curves over time (PNG, CSV); and those
of the papers' experiments: sheets of any frames with names and borders, trajectories, maps, latent spaces.

In: numpy arrays or tensors. Out: files. Nothing here needs a display.
Each module is imported by its own name (`from odevid.pictures.gif import save_gif`).
"""
