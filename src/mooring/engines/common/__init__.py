"""What several engines need: event loops, lifespan, the drain and its gate, TLS."""
