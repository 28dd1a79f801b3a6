"""What others would use in the place of our history sink, each a process of its own, on the same records."""
