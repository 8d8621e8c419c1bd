"""Raw datasets -> dataset folders: ``python -m shards build NAME --raw DIR --out DIR``.

    a builder (kth.py, bair.py, ...) --plan--> BuildPlan: items in order, and how one item becomes samples   (plan.py)
    items --parts--> worker processes --> one tar, its index and a note per part, in .OUT.parts     (part.py, run.py)
    all parts there --merge--> manifest.json, report.csv; .OUT.parts becomes OUT                           (merge.py)

A part is a fixed slice of the plan, so the bytes depend neither on the workers nor on interruptions nor on how a SLURM
array has shared the parts out. What reads videos: video.py (decoding, time), picture.py (crop, size, colour).
"""
