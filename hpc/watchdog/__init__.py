"""The guard against hangs: each rank leaves heartbeats, an observer per node tells who does nothing, where, and why.

    rank: beat(step, phase) --> heartbeat in shared memory ------------> observer of the node (a process of its own)
          C-level timer, re-armed by beats --> RUN/hangs/.../rank-2.txt ---^    |
                                                          /proc/PID/* ---------^    v
                              RUN/hangs/attempt-0003/{node-HOST.json, diagnosis.txt}, SIGKILL to the ranks

A rank that is stopped, dead or stuck in the kernel cannot say so: the observer needs none of its help.
"""
