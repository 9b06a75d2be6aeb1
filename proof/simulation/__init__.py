"""The simulator: the plain classes of the centre in one process, under a clock, stations, chips,
counterparts and faults that all follow from a seed. After every step the promises are checked.
"""
