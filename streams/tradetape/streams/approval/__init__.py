"""Which signals become trades: the rules, the user's policy, and the memory that decisions rest on."""
