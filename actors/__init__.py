"""The lines of the floor: inventory, key replacement and its provider (`hsm/`), inspection
(`qa/`), sorting. Each line is plain Python that decides; `shell.py` is the Ray actor around it.

May import domain and ledger. `import ray` stands in `shell.py` only.
"""
