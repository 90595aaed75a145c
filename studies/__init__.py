"""Studies repeat the whole sentence: presets, search spaces, reports."""
