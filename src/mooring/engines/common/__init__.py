"""What several engines need: loops, lifespan, the drain and its gate, TLS."""
