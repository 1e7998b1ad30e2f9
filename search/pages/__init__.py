"""The report of a run for a reader: one page, Markdown and CSV of the same content."""
