"""The papers' experiments on a trained run, as commands: `python hpc/launch.py study NAME run=RUN`.

`registry.py` is the table of studies, `command.py` the command line; each study's module takes clips of the test split
and writes pictures and numbers into RUN/studies/NAME/. What is computed and how it is drawn is in `odevid`.
"""
