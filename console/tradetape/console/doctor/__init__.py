"""What `tradetape doctor` looks at. It changes nothing; each fault comes with what mends it."""
