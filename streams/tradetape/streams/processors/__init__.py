"""What turns records into state."""
