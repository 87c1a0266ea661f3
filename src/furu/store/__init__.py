"""Artifacts on disk: where they are stored, which process computes them, how each is published once.

    layout.py    the names of a node's files
    record.py    the JSON documents in those files; reading and writing them safely
    sync.py      files and names that survive a power cut
    trust.py     refusing a store that every user of the machine may write to
    owner.py     a process as an owner; whether another owner is alive
    local.py     what this process remembers about its stores
    artifact.py  the status of a node, from its names
    files.py     the files of one attempt, with its log
    attempt.py   one attempt: publishing, ending
    claim.py     how an attempt claims its node
    leftovers.py removing what earlier attempts left
    catalog.py   what is in a store, for people
    removal.py   removing nodes that are not being computed

The store knows nodes only as names and hashes. docs/explanation/store.md says what it promises.
"""
