"""Files of lines and fields as tables in TOML, one a file here. May import `domain`.

A line is its mark and its fields, joined by the delimiter. GB 18030 has the delimiter's byte inside
of characters too, so a line is decoded before it is split; a line feed is never part of one.
"""

from gateways.layouts.layout import BadLine, Layout, Row, load_layout

__all__ = ["BadLine", "Layout", "Row", "load_layout"]
