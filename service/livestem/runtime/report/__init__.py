"""The report of results: one page with the paper's tables and pictures, and the pictures as files."""
