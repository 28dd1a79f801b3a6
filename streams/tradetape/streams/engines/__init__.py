"""What feeds a processor: Kafka directly, Faust, or memory. One contract, one suite of tests for all three."""
