"""What the centre costs, measured: `make bench` (see `bench/RESULTS.md` for the last figures).

Every figure is a ratio or a rate of one run on one machine, with what it includes said beside it.
"""
