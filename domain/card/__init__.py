"""What is known about the chip: APDUs, records, identification code, profile, segments.

Pure bytes and data; the keys that go with it live in `actors.hsm`. Imports `domain` only.
"""
