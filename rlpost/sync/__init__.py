"""How a new policy version reaches the engines."""
