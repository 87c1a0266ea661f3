"""Artifacts on disk: where they lie, who is making them, how one is published exactly once.

    layout.py    names: the directory of a node and the files in it
    record.py    the JSON documents in those files; reading and writing them safely
    sync.py      files and names that survive a power cut
    trust.py     whether everybody may write into the store's root
    owner.py     this process as an owner; whether another owner is alive
    artifact.py  what a node's directory says: its status
    attempt.py   claim, publish, end: the protocol over the four above
    catalog.py   what is in a store, for people who look at it
    removal.py   removing nodes, never one that is being computed

Knows nodes only as names and hashes. docs/explanation/store.md says what is promised and what not.
"""
