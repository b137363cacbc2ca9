"""The rate–distortion laboratory: many codecs on a folder of images, from real bytes and decoded pixels.

    images × codecs.py × settings ── runner.py ──> rows.py (JSON lines, one row an image at one setting)
    rows ── curves.py, bdrate.py ──> summary.py (tables), compare.py (two commits), plots.py, report.py (one HTML page)

Nothing below the runner encodes anything: tables, plots and report are redrawn from the rows alone.
"""
