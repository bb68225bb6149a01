"""What happens to a scan when something happens: every fault, every place, and what came of it.

Four parts, from pure to real: `cases` (both hops of the wire in memory, on a virtual clock), `matrix` (a real service
behind proxies, faults of microscope and network), `kills` (kill -9 at any moment), `soak` (hours of it). `page` writes
docs/reliability.md from their results.
"""
