"""The composition root: configuration, start-up, supervision, the `centre` command.

May import every room.
"""
