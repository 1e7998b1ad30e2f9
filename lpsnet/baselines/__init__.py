"""The comparison networks of the papers, by name."""
