"""How fast livestem is, beside what one would do instead; ``python -m benchmarks.performance --help``."""
