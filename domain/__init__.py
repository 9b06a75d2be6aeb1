"""The vocabulary of the centre: ids, bodies, orders, places, movements, events, codes.

Pure: no I/O, no Ray, no clock, no randomness, no cryptography. Imports nothing of ours.
"""
