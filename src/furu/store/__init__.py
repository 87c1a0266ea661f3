"""Artifacts on disk: where they are stored, which process computes them, and how each is published once.

    layout.py    the names of a node's files
    record.py    the JSON documents in those files, and how they are read and written safely
    sync.py      makes files and their names survive a power cut
    trust.py     refuses a store that every user of the machine may write to
    owner.py     the file that represents a process; whether another process is alive
    local.py     what this process remembers about its stores
    artifact.py  the status of a node, derived from its file names
    files.py     the files of one attempt, including its log
    attempt.py   one attempt: its states, and how it publishes or records a failure
    claim.py     how an attempt claims its node
    leftovers.py removes the files of earlier attempts
    catalog.py   lists the nodes of a store, for people
    removal.py   removes nodes that are not being computed

The store knows nodes only by class name and hash. docs/explanation/store.md lists its guarantees.
"""
