"""The methods: pure functions, arrays in, arrays out. They know the domain's words and nothing of the world."""
