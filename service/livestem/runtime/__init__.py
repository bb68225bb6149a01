"""The world: files, threads, sockets, devices. Everything that happens to the pure parts happens here."""
