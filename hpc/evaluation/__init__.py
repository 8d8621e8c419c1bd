"""How good a model is: a protocol, scorers, the evaluation of videos and samples over ranks, its results as files.

    protocol (what, how, whose part) + scorers (which metrics) --evaluate--> parts (of clips, of ranks) --join-->
        Evaluation --results--> tables, curves, pictures, and scores (read back by the report, without torch)

`verb` is what `launch.py evaluate` runs on each rank; validations during training call `evaluate` themselves.
"""
