"""Training: the supernet by a strategy, and one network alone, in one loop."""
